// The loss's passes against a naive double-precision reference: odd shapes, missing labels, every instruction set, more
// threads than this machine has. Built under sanitizers like sanitize.cpp; every buffer is as large as its shape says.
#include "head_loss.h"

#include <thread>

#include "check.h"

namespace {

using check::Doubles;
using check::Floats;
using check::Index;
using check::report;
using check::size;

struct Result {
  Floats score_grad, vote_grad, terms, features, weights[4], biases[5];
};

struct Case {
  Index batch, channels, landmarks, neighbors, height, width;
  bool labelled;
  std::mt19937 engine{static_cast<unsigned>(channels * 1000 + landmarks * 10 + neighbors)};
  Floats features, weights[4], biases[4], points, sample_weights, score;
  std::vector<Index> neighbor;

  Case(Index b, Index c, Index n, Index k, Index h, Index w, bool all)
      : batch(b), channels(c), landmarks(n), neighbors(k), height(h), width(w), labelled(all) {
    features = quarters(batch * cells() * channels);
    score = quarters(batch * cells() * landmarks);
    for (int layer = 0; layer < 4; ++layer) {
      weights[layer] = quarters(rows(layer) * channels);
      biases[layer] = quarters(rows(layer));
    }
    // An odd number of 64ths of the crop, partly outside: no error of a vote is 0, however it is rounded.
    points.resize(size(batch * landmarks * 2));
    for (float& point : points) point = static_cast<float>(2 * static_cast<int>(engine() % 48) - 15) / 64.0f;
    for (std::size_t i = 0; !labelled && i < points.size(); i += 5) points[i] = std::nanf("");
    for (Index i = 0; !labelled && i < batch * 3; ++i) sample_weights.push_back(static_cast<float>(i % 4) / 2.0f);
    for (Index i = 0; i < landmarks * neighbors; ++i) neighbor.push_back(static_cast<Index>(engine()) % landmarks);
  }

  Index cells() const { return height * width; }
  Index rows(int layer) const { return layer < 2 ? landmarks : landmarks * neighbors; }
  Floats quarters(Index count) {
    Floats values(size(count));
    for (float& value : values) value = static_cast<float>(static_cast<int>(engine() % 7) - 3) / 4.0f;
    return values;
  }
  bool present(Index b, Index n) const {
    return !std::isnan(points[size((b * landmarks + n) * 2)]) && !std::isnan(points[size((b * landmarks + n) * 2 + 1)]);
  }
  double weight(Index b, Index term) const { return sample_weights.empty() ? 1.0 : sample_weights[size(b * 3 + term)]; }
  double position(Index b, Index n, int axis) const {
    const float frac = points[size((b * landmarks + n) * 2 + axis)];
    return std::isnan(frac) ? 0.0 : double(frac) * static_cast<double>(axis == 0 ? width : height);
  }
  double corner(Index b, Index n, int axis) const {
    const double last = static_cast<double>(axis == 0 ? width : height) - 1.0;
    return std::min(std::max(std::floor(position(b, n, axis)), 0.0), last);
  }
  Index row_of(Index b, Index n) const {
    return b * cells() + static_cast<Index>(corner(b, n, 1)) * width + static_cast<Index>(corner(b, n, 0));
  }

  Result run(int threads, bool of_head, bool of_features) const {
    Result out;
    const Index votes = 2 * (1 + neighbors);
    out.score_grad = score;
    out.vote_grad.resize(size(landmarks * votes * batch));
    out.terms.resize(3);
    std::vector<Index> index(size(landmarks * batch));
    pipnet::HeadLossArgs args{batch, channels, landmarks, neighbors, {height, width}, features.data(), {}};
    pipnet::HeadLossForward forward{};
    for (int layer = 0; layer < 4; ++layer) {
      args.weights[layer] = weights[layer].data();
      forward.biases[layer] = biases[layer].data();
    }
    forward.points = points.data(), forward.neighbors = neighbor.data();
    forward.sample_weights = sample_weights.empty() ? nullptr : sample_weights.data();
    forward.score = out.score_grad.data(), forward.index = index.data(), forward.vote_grad = out.vote_grad.data();
    for (int term = 0; term < 3; ++term) forward.terms[term] = &out.terms[size(term)];
    pipnet::head_loss_forward(args, forward, threads);

    pipnet::HeadLossBackward backward{};
    backward.score_grad = out.score_grad.data(), backward.index = index.data();
    backward.vote_grad = out.vote_grad.data();
    backward.of_terms[0] = 1.0f, backward.of_terms[1] = 0.5f, backward.of_terms[2] = 2.0f;
    for (int layer = 0; of_head && layer < 5; ++layer) {
      out.biases[layer].resize(size(layer == 0 ? landmarks : rows(layer - 1)));
      backward.biases[layer] = out.biases[layer].data();
    }
    for (int layer = 0; of_head && layer < 4; ++layer) {
      out.weights[layer].resize(weights[layer].size());
      backward.weights[layer] = out.weights[layer].data();
    }
    if (of_features) {
      out.features.resize(features.size());
      backward.features = out.features.data();
    }
    pipnet::head_loss_backward(args, backward, threads);
    return out;
  }
};

void compare(const std::string& what, const Floats& got, const Doubles& want) {
  double largest = 0.0, worst = 0.0;
  for (double value : want) largest = std::max(largest, std::abs(value));
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double off = std::abs(double(got[i]) - want[i]);
    if (!(off <= worst)) worst = off;
  }
  // What cancels leaves the rounding of its parts.
  report(what, got.size() == want.size() && worst <= 1e-5 * largest + 1e-7,
         "off by " + std::to_string(worst) + " of " + std::to_string(largest));
}

// What the passes should give, in double precision: of_terms as in Case::run.
struct Reference {
  Doubles terms = Doubles(3), features, weights[4], biases[5];

  explicit Reference(const Case& c) : features(c.features.size()) {
    for (int layer = 0; layer < 4; ++layer) weights[layer].resize(c.weights[layer].size());
    biases[0].resize(size(c.landmarks));
    for (int layer = 0; layer < 4; ++layer) biases[1 + layer].resize(size(c.rows(layer)));
    double counted[3] = {};
    for (int turn = 0; turn < 2; ++turn) {  // first what counts, then what for
      for (Index b = 0; b < c.batch; ++b) {
        for (Index n = 0; n < c.landmarks; ++n) {
          if (!c.present(b, n)) continue;
          counted[0] += turn == 0 ? c.weight(b, 0) * static_cast<double>(c.cells()) : 0.0;
          for (Index cell = 0; turn == 1 && cell < c.cells(); ++cell) score(c, b, n, cell, counted[0]);
          for (Index vote = 0; vote <= c.neighbors; ++vote) {
            const Index target = vote == 0 ? n : c.neighbor[size(n * c.neighbors + vote - 1)];
            if (!c.present(b, target)) continue;
            const int term = vote == 0 ? 1 : 2;
            counted[term] += turn == 0 ? 2.0 * c.weight(b, term) : 0.0;
            for (int axis = 0; turn == 1 && axis < 2; ++axis) compare_vote(c, b, n, vote, target, axis, counted[term]);
          }
        }
      }
    }
  }

  void score(const Case& c, Index b, Index n, Index cell, double counted) {
    const Index row = b * c.cells() + cell;
    const double residual = c.score[size(row * c.landmarks + n)] - (row == c.row_of(b, n) ? 1.0 : 0.0);
    const double share = counted > 0.0 ? c.weight(b, 0) / counted : 0.0;
    terms[0] += residual * residual * share;
    biases[0][size(n)] += 2.0 * residual * share;
  }

  void compare_vote(const Case& c, Index b, Index n, Index vote, Index target, int axis, double counted) {
    const int layer = vote == 0 ? axis : 2 + axis, term = vote == 0 ? 1 : 2;
    const std::size_t row = size(vote == 0 ? n : n * c.neighbors + vote - 1);
    const std::size_t weight = row * size(c.channels), feature = size(c.row_of(b, n) * c.channels);
    double value = c.biases[layer][row];
    for (std::size_t i = 0; i < size(c.channels); ++i)
      value += double(c.weights[layer][weight + i]) * c.features[feature + i];
    const double error = value - (c.position(b, target, axis) - c.corner(b, n, axis));
    const double share = counted > 0.0 ? c.weight(b, term) / counted : 0.0;
    terms[size(term)] += std::abs(error) * share;
    const double gradient = (error > 0.0 ? 1.0 : error < 0.0 ? -1.0 : 0.0) * share * (term == 1 ? 0.5 : 2.0);
    biases[1 + layer][row] += gradient;
    for (std::size_t i = 0; i < size(c.channels); ++i) {
      weights[layer][weight + i] += gradient * c.features[feature + i];
      features[feature + i] += gradient * c.weights[layer][weight + i];
    }
  }
};

void check_case(const Case& c) {
  const Reference want(c);
  for (const pipnet::Isa* isa : pipnet::available_isas()) {
    pipnet::use_isa(isa->name);
    for (int threads : {1, 2, 5}) {
      for (int frozen = 0; frozen < 3; ++frozen) {  // nothing, the head, the features
        const Result got = c.run(threads, frozen != 1, frozen != 2);
        const std::string what = std::string(isa->name) + " threads=" + std::to_string(threads) +
                                 " B=" + std::to_string(c.batch) + " C=" + std::to_string(c.channels) +
                                 " N=" + std::to_string(c.landmarks) + " K=" + std::to_string(c.neighbors) + " ";
        compare(what + "terms", got.terms, want.terms);
        if (frozen != 2) compare(what + "features", got.features, want.features);
        for (int layer = 0; frozen != 1 && layer < 4; ++layer)
          compare(what + "weights", got.weights[layer], want.weights[layer]);
        for (int layer = 0; frozen != 1 && layer < 5; ++layer)
          compare(what + "biases", got.biases[layer], want.biases[layer]);
      }
    }
  }
}

void check_concurrent(const Case& c) {
  const Result want = c.run(1, true, true);
  std::vector<int> wrong(8);
  std::vector<std::thread> callers;
  for (int& mine : wrong) {
    callers.emplace_back([&] {
      for (int turn = 0; turn < 5; ++turn) {
        const Result got = c.run(5, true, true);
        mine += got.terms != want.terms || got.features != want.features || got.weights[2] != want.weights[2];
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  report("8 callers at once", std::count(wrong.begin(), wrong.end(), 0) == 8);
}

void check_transpose() {
  for (Index count : {0, 1, 3}) {
    for (Index rows : {1, 8, 13, 64}) {
      for (Index columns : {1, 7, 16, 33}) {
        Floats in(size(count * rows * columns)), out(in.size());
        Doubles want(in.size());
        for (Index i = 0; i < count * rows * columns; ++i) {
          const Index matrix = i / (rows * columns), row = i / columns % rows, column = i % columns;
          in[size(i)] = static_cast<float>(i);
          want[size((matrix * columns + column) * rows + row)] = static_cast<double>(i);
        }
        for (int threads : {1, 5}) {
          pipnet::transpose(in.data(), count, rows, columns, out.data(), threads);
          compare("transpose " + std::to_string(rows) + "x" + std::to_string(columns), out, want);
        }
      }
    }
  }
}

}  // namespace

int main() {
  check_transpose();
  for (bool labelled : {true, false})
    for (Index batch : {0, 1, 3, 6})
      for (Index landmarks : {1, 5, 19})
        for (Index neighbors : {0, 1, 10})
          for (Index channels : {1, 16, 33, 67, 160})
            check_case(Case(batch, channels, landmarks, neighbors, 1 + channels % 3, 1 + landmarks % 4, labelled));
  check_concurrent(Case(5, 130, 19, 10, 3, 3, false));
  return check::summary();
}
