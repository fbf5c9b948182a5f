"""The running argmax over blocks of cells; specification: pipnet_fast/ops/_merge.py, ``winning_cells``."""

import triton
import triton.language as tl


@triton.jit
def fold_winner(score, cell, live, best_score, best_cell):
    """Fold a block of scores (S,) at cells (S,) into the best so far; the first of equal scores stays.

    A NaN, and a lane that is not live, counts as minus infinity.
    """
    score = tl.where(live & (score == score), score, float("-inf"))
    block_score, lane = tl.max(score, axis=0, return_indices=True)
    first_cell = tl.min(cell, axis=0)
    wins = block_score > best_score
    return tl.where(wins, block_score, best_score), tl.where(wins, first_cell + lane, best_cell)
