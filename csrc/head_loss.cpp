#include "head_loss.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <vector>

#include "isa.h"
#include "parallel.h"

namespace pipnet {
namespace {

using Index = std::int64_t;
using Floats = std::vector<float>;

// A thread with fewer multiplications than this to do is not worth waking. That is many: after each of its products
// torch's own threads spin on their cores for a while.
constexpr Index kMultipliesPerThread = Index{1} << 23;

std::size_t size(Index n) { return static_cast<std::size_t>(n); }

Index votes_of(const HeadLossArgs& a) { return 2 * (1 + a.neighbors); }

int useful_threads(const HeadLossArgs& a, int threads) {
  return worthwhile_threads(a.batch * a.landmarks * votes_of(a) * a.channels, kMultipliesPerThread, threads);
}

// Where the entries of the layers lie, in the order of the votes: (N, 2, 1 + K).
template <class T>
std::vector<T*> by_landmark(const HeadLossArgs& a, T* const (&layers)[4], Index length) {
  std::vector<T*> entries;
  entries.reserve(size(a.landmarks * votes_of(a)));
  for (Index n = 0; n < a.landmarks; ++n) {
    for (Index axis = 0; axis < 2; ++axis) {
      entries.push_back(layers[axis] + n * length);
      for (Index k = 0; k < a.neighbors; ++k) entries.push_back(layers[2 + axis] + (n * a.neighbors + k) * length);
    }
  }
  return entries;
}

// The features of the labelled cells, or their gradients: (N, B).
template <class T>
std::vector<T*> columns(const HeadLossArgs& a, const Index* index, T* features) {
  std::vector<T*> entries(size(a.landmarks * a.batch));
  for (std::size_t i = 0; i < entries.size(); ++i) entries[i] = features + index[i] * a.channels;
  return entries;
}

// Entries (N, B), or (N, 2, B) where an axis is among them.
struct Labels {
  Floats position;  // in cells
  Floats corner;    // of the labelled cell
  Floats present;   // 1 or 0
  // What entries of weight 1 count for in the means.
  float score_share, offset_share, neighbor_share;
};

float share(double weight, Index entries) {
  return 1.0f / std::max(static_cast<float>(weight * static_cast<double>(entries)), FLT_MIN);
}

float sample_weight(const HeadLossForward& p, Index image, Index term) {
  return p.sample_weights == nullptr ? 1.0f : p.sample_weights[image * 3 + term];
}

Labels read_labels(const HeadLossArgs& a, const HeadLossForward& p) {
  const Index batch = a.batch, cells = a.grid.height * a.grid.width;
  Labels labels{Floats(size(a.landmarks * 2 * batch)), Floats(size(a.landmarks * 2 * batch)),
                Floats(size(a.landmarks * batch)), 0.0f, 0.0f, 0.0f};
  const float extent[2] = {static_cast<float>(a.grid.width), static_cast<float>(a.grid.height)};
  for (Index n = 0; n < a.landmarks; ++n) {
    for (Index b = 0; b < batch; ++b) {
      const float* point = p.points + (b * a.landmarks + n) * 2;
      Index cell[2];
      for (Index axis = 0; axis < 2; ++axis) {
        // A landmark without a label lies anywhere: its weight is zero. Infinite ones become finite as in torch.
        const float frac = std::isnan(point[axis]) ? 0.0f : std::clamp(point[axis], -FLT_MAX, FLT_MAX);
        const float position = frac * extent[axis];
        const float corner = std::min(std::max(std::floor(position), 0.0f), extent[axis] - 1.0f);
        cell[axis] = static_cast<Index>(corner);
        labels.position[size((n * 2 + axis) * batch + b)] = position;
        labels.corner[size((n * 2 + axis) * batch + b)] = corner;
      }
      labels.present[size(n * batch + b)] = std::isnan(point[0]) || std::isnan(point[1]) ? 0.0f : 1.0f;
      p.index[n * batch + b] = b * cells + cell[1] * a.grid.width + cell[0];
    }
  }
  // Landmarks with a label, and pairs of neighbors that both have one, of each image.
  Floats own(size(batch)), near(size(batch));
  for (Index n = 0; n < a.landmarks; ++n) {
    const float* present = labels.present.data() + n * batch;
    for (Index b = 0; b < batch; ++b) own[size(b)] += present[b];
    for (Index k = 0; k < a.neighbors; ++k) {
      const float* other = labels.present.data() + p.neighbors[n * a.neighbors + k] * batch;
      for (Index b = 0; b < batch; ++b) near[size(b)] += present[b] * other[b];
    }
  }
  double score = 0.0, offset = 0.0, neighbor = 0.0;
  for (Index b = 0; b < batch; ++b) {
    score += double{own[size(b)]} * sample_weight(p, b, 0);
    offset += double{own[size(b)]} * sample_weight(p, b, 1);
    neighbor += double{near[size(b)]} * sample_weight(p, b, 2);
  }
  labels.score_share = share(score, cells);
  labels.offset_share = share(offset, 2);
  labels.neighbor_share = share(neighbor, 2);
  return labels;
}

// One image's scores become half their gradient; returns the image's part of the term.
double score_image(const HeadLossArgs& a, const HeadLossForward& p, const Labels& labels, Index image) {
  const Index landmarks = a.landmarks, cells = a.grid.height * a.grid.width;
  Floats weight(size(landmarks)), sum(size(landmarks));
  const float each = labels.score_share * sample_weight(p, image, 0);
  for (Index n = 0; n < landmarks; ++n) {
    weight[size(n)] = labels.present[size(n * a.batch + image)] * each;
    p.score[p.index[n * a.batch + image] * landmarks + n] -= 1.0f;
  }
  for (Index cell = 0; cell < cells; ++cell) {
    float* residual = p.score + (image * cells + cell) * landmarks;
    for (Index n = 0; n < landmarks; ++n) {
      const float gradient = residual[n] * weight[size(n)];
      sum[size(n)] += residual[n] * gradient;
      residual[n] = gradient;
    }
  }
  double term = 0.0;
  for (float part : sum) term += double{part};
  return term;
}

// The votes of one landmark become their gradients; returns the landmark's part of the terms of offset and neighbor.
struct VoteTerms {
  double offset = 0.0, neighbor = 0.0;
};

VoteTerms compare_votes(const HeadLossArgs& a, const HeadLossForward& p, const Labels& labels,
                        const float* const* biases, Index landmark) {
  const Index batch = a.batch, each = 1 + a.neighbors;
  const float* present = labels.present.data() + landmark * batch;
  VoteTerms terms;
  for (Index vote = 0; vote < each; ++vote) {
    const Index target = vote == 0 ? landmark : p.neighbors[landmark * a.neighbors + vote - 1];
    const float* other = labels.present.data() + target * batch;
    const float share = vote == 0 ? labels.offset_share : labels.neighbor_share;
    for (Index axis = 0; axis < 2; ++axis) {
      const float* position = labels.position.data() + (target * 2 + axis) * batch;
      const float* corner = labels.corner.data() + (landmark * 2 + axis) * batch;
      float* gradient = p.vote_grad + ((landmark * 2 + axis) * each + vote) * batch;
      const float bias = *biases[axis * each + vote];
      float sum = 0.0f;
      for (Index b = 0; b < batch; ++b) {
        const float error = gradient[b] + bias - (position[b] - corner[b]);
        const float weight = present[b] * other[b] * share * sample_weight(p, b, vote == 0 ? 1 : 2);
        gradient[b] = static_cast<float>((error > 0.0f) - (error < 0.0f)) * weight;
        sum += error * gradient[b];
      }
      (vote == 0 ? terms.offset : terms.neighbor) += double{sum};
    }
  }
  return terms;
}

void sum_score_bias(const HeadLossArgs& a, const HeadLossBackward& p) {
  float* const out = p.biases[0];
  std::fill(out, out + a.landmarks, 0.0f);
  for (Index row = 0; row < a.batch * a.grid.height * a.grid.width; ++row)
    for (Index n = 0; n < a.landmarks; ++n) out[n] += p.score_grad[row * a.landmarks + n];
  for (Index n = 0; n < a.landmarks; ++n) out[n] *= 2.0f * p.of_terms[0];
}

// The gradients of all votes, (N, 2, 1 + K, B).
Floats vote_gradients(const HeadLossArgs& a, const HeadLossBackward& p) {
  Floats out(size(a.landmarks * votes_of(a) * a.batch));
  for (Index row = 0; row < a.landmarks * votes_of(a); ++row) {
    const float factor = p.of_terms[row % (1 + a.neighbors) == 0 ? 1 : 2];
    for (Index i = row * a.batch; i < (row + 1) * a.batch; ++i) out[size(i)] = p.vote_grad[i] * factor;
  }
  return out;
}

// Of a square that is transposed at once: its columns' lines keep to as many as a cache set has ways.
constexpr Index kSide = 8;
// Fewer numbers than this are moved before another thread is awake.
constexpr Index kMovesPerThread = Index{1} << 20;

// Rows [first, first + kSide) of one matrix, as far as there are.
void transpose_rows(const float* in, Index rows, Index columns, Index first, float* out) {
  const Index height = std::min(kSide, rows - first);
  for (Index column = 0; column < columns; column += kSide) {
    const Index width = std::min(kSide, columns - column);
    const float* from = in + first * columns + column;
    float* to = out + column * rows + first;
    if (height == kSide && width == kSide) {
      for (Index c = 0; c < kSide; ++c)
        for (Index r = 0; r < kSide; ++r) to[c * rows + r] = from[r * columns + c];
    } else {
      for (Index c = 0; c < width; ++c)
        for (Index r = 0; r < height; ++r) to[c * rows + r] = from[r * columns + c];
    }
  }
}

// Channels that a thread takes at once: whole cache lines, whole tiles of every instruction set.
constexpr Index kChannels = 64;

}  // namespace

void transpose(const float* in, Index count, Index rows, Index columns, float* out, int threads) {
  const Index bands = (rows + kSide - 1) / kSide, size = rows * columns;
  parallel_for(count * bands, worthwhile_threads(count * size, kMovesPerThread, threads), [&](Index item) {
    const Index offset = item / bands * size;
    transpose_rows(in + offset, rows, columns, item % bands * kSide, out + offset);
  });
}

void head_loss_forward(const HeadLossArgs& a, const HeadLossForward& p, int threads) {
  const Labels labels = read_labels(a, p);
  const auto weights = by_landmark(a, a.weights, a.channels), biases = by_landmark(a, p.biases, Index{1});
  const auto features = columns(a, p.index, a.features);
  const HeadLossKernels& kernels = current_isa().loops.head_loss;
  const Index rows = votes_of(a);
  std::vector<double> scores(size(a.batch));
  std::vector<VoteTerms> votes(size(a.landmarks));
  parallel_for(a.batch + a.landmarks, useful_threads(a, threads), [&](Index item) {
    if (item < a.batch) {
      scores[size(item)] = score_image(a, p, labels, item);
      return;
    }
    const Index n = item - a.batch;
    kernels.dot(weights.data() + n * rows, rows, features.data() + n * a.batch, a.batch, a.channels,
                p.vote_grad + n * rows * a.batch);
    votes[size(n)] = compare_votes(a, p, labels, biases.data() + n * rows, n);
  });
  // Added up in order, so that the sums do not depend on who did what.
  double score = 0.0;
  VoteTerms sum;
  for (double part : scores) score += part;
  for (const VoteTerms& part : votes) sum.offset += part.offset, sum.neighbor += part.neighbor;
  *p.terms[0] = static_cast<float>(score);
  *p.terms[1] = static_cast<float>(sum.offset);
  *p.terms[2] = static_cast<float>(sum.neighbor);
}

void head_loss_backward(const HeadLossArgs& a, const HeadLossBackward& p, int threads) {
  const Index rows = votes_of(a), batch = a.batch;
  const HeadLossKernels& kernels = current_isa().loops.head_loss;
  const Floats gradients = vote_gradients(a, p);
  const auto weights = by_landmark(a, a.weights, a.channels);
  const auto features = columns(a, p.index, a.features);

  std::vector<float*> weight_grads, bias_grads, feature_grads;
  const bool of_head = p.weights[0] != nullptr;
  if (of_head) {
    float* const layers[4] = {p.biases[1], p.biases[2], p.biases[3], p.biases[4]};
    weight_grads = by_landmark(a, p.weights, a.channels);
    bias_grads = by_landmark(a, layers, Index{1});
  }
  if (p.features != nullptr) feature_grads = columns(a, p.index, p.features);

  threads = useful_threads(a, threads);
  // Landmarks may share a cell, channels share nothing.
  const Index parts = p.features == nullptr ? 0 : threads == 1 ? 1 : (a.channels + kChannels - 1) / kChannels;
  const Index width = parts == 1 ? a.channels : kChannels;
  const auto of_columns = [&](Index part) {
    for (Index n = 0; n < a.landmarks; ++n) {
      kernels.sum({weights.data() + n * rows, feature_grads.data() + n * batch, rows, batch,
                   gradients.data() + n * rows * batch, batch, 1, true},
                  part * width, std::min(a.channels, (part + 1) * width));
    }
  };
  const auto of_weights = [&](Index n) {
    const float* gradient = gradients.data() + n * rows * batch;
    kernels.sum({features.data() + n * batch, weight_grads.data() + n * rows, batch, rows, gradient, 1, batch, false}, 0,
                a.channels);
    for (Index r = 0; r < rows; ++r) {
      float sum = 0.0f;
      for (Index b = 0; b < batch; ++b) sum += gradient[r * batch + b];
      *bias_grads[size(n * rows + r)] = sum;
    }
  };
  parallel_for(parts + (of_head ? 1 + a.landmarks : 0), threads, [&](Index item) {
    if (item < parts) of_columns(item);
    else if (item == parts) sum_score_bias(a, p);
    else of_weights(item - parts - 1);
  });
}

}  // namespace pipnet
