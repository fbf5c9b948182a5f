"""The running argmax over blocks of cells; specification: pipnet_fast/ops/_merge.py, ``winning_cells``."""

import triton
import triton.language as tl


@triton.jit
def fold_winner(score, first, best_score, best_cell, AXIS: tl.constexpr):
    """Fold a block of scores, the cells from ``first`` along AXIS, into the best so far.

    The first of equal scores stays, so blocks come in the order of their cells. A NaN counts as minus infinity,
    and as minus infinity come the lanes beyond the grid.
    """
    score = tl.where(score == score, score, float("-inf"))
    block_score, lane = tl.max(score, axis=AXIS, return_indices=True, return_indices_tie_break_left=True)
    wins = block_score > best_score
    return tl.where(wins, block_score, best_score), tl.where(wins, first + lane, best_cell)
