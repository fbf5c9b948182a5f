// Both operations of the C++ core against a naive double-precision reference, over many shapes, layouts, instruction
// sets and thread counts. Built under sanitizers (make sanitize); needs neither Python nor any library.
//
// Every buffer is exactly as large as its shape says, so that AddressSanitizer sees the first float read beyond it.
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <thread>

#include "check.h"
#include "decode.h"
#include "head_decode.h"
#include "normalize.h"

namespace {

using check::Floats;
using check::Index;
using check::report;
using check::size;
using pipnet::kPanel;

struct Grid : pipnet::Grid {
  Index cells() const { return height * width; }
};

constexpr float kNan = std::numeric_limits<float>::quiet_NaN(), kInf = std::numeric_limits<float>::infinity();
// What the gaps of a padded view hold: it wins, and spoils every sum, if it is read.
constexpr float kGap = 1e9f;
// In the outputs before a call: a NaN that no arithmetic gives.
const float kUnwritten = std::nanf("0xdead");

struct Random {
  std::mt19937 engine;

  explicit Random(std::uint32_t seed) : engine(seed) {}
  Index below(Index n) { return static_cast<Index>(engine() % static_cast<std::uint64_t>(n)); }
  float integer(Index limit) { return static_cast<float>(below(2 * limit + 1) - limit); }
  float real() { return static_cast<float>(engine()) * 0x1p-31f - 1.0f; }
  float special() { return std::array<float, 3>{kNan, kInf, -kInf}[size(below(3))]; }
};

enum Layout { kNchw, kChannelsLast, kPadded, kBroadcast, kMixed };
const char* const kLayoutNames[] = {"nchw", "channels-last", "padded", "broadcast", "mixed"};

// Integers and quarters: all arithmetic is exact in float, so results must be equal, and ties are many. "equal" makes
// all scores of a landmark the same, "planted" two of them the maximum; "special" has NaN and infinities. Reals are
// compared with a tolerance.
enum Fill { kIntegers, kEqual, kPlanted, kSpecial, kReals };
const char* const kFillNames[] = {"integers", "equal", "planted", "special", "reals"};

struct Shape {
  Index batch, channels, landmarks, neighbors;
  Grid grid;
  Layout layout;
  Fill fill;

  Index votes() const { return landmarks * (1 + neighbors); }
  std::string text() const {
    const auto field = [](const char* name, Index n) { return std::string(name) + "=" + std::to_string(n) + " "; };
    return field("B", batch) + field("C", channels) + field("N", landmarks) + field("K", neighbors) +
           field("H", grid.height) + field("W", grid.width) + kLayoutNames[layout] + " " + kFillNames[fill];
  }
};

// A strided (B, C, H, W) tensor whose buffer ends with its last element.
struct View {
  std::array<Index, 4> dims;
  std::array<Index, 4> strides{};
  Index first = 0;
  Floats memory;

  View(const std::array<Index, 4>& shape, Layout layout, Random& random) : dims(shape) {
    if (layout == kMixed) layout = static_cast<Layout>(random.below(4));
    const bool broadcast = layout == kBroadcast;
    if (broadcast) layout = static_cast<Layout>(random.below(3));
    const bool padded = layout == kPadded;
    std::array<std::size_t, 4> order{3, 2, 1, 0};  // innermost first
    if (layout == kChannelsLast) order = {1, 3, 2, 0};
    for (std::size_t d = 3; padded && d > 0; --d) std::swap(order[d], order[size(random.below(Index(d) + 1))]);
    Index next = padded ? 1 + random.below(3) : 1, count = 1;
    for (std::size_t d : order) {
      strides[d] = broadcast && d == 0 ? 0 : next;
      next = next * dims[d] + (padded ? random.below(4) : 0);
      count += (dims[d] - 1) * strides[d];
    }
    first = padded ? random.below(5) : 0;
    const bool empty = std::count(dims.begin(), dims.end(), 0) != 0;
    memory = Floats(empty ? 0 : size(first + count), kGap);
  }

  pipnet::Strides core_strides() const { return {strides[0], strides[1], strides[2], strides[3]}; }
  const float* data() const { return memory.empty() ? nullptr : memory.data() + first; }
  float at(Index b, Index c, Index cell) const { return memory[place(b, c, cell)]; }
  void set(Index b, Index c, Index cell, float value) { memory[place(b, c, cell)] = value; }
  std::size_t place(Index b, Index c, Index cell) const {
    const Index y = cell / dims[3], x = cell % dims[3];
    return size(first + b * strides[0] + c * strides[1] + y * strides[2] + x * strides[3]);
  }
  template <class Value>
  void fill(const Value& value) {
    for (Index b = 0; b < dims[0]; ++b)
      for (Index c = 0; c < dims[1]; ++c)
        for (Index cell = 0; cell < dims[2] * dims[3]; ++cell) set(b, c, cell, value());
  }
};

struct Table {
  std::vector<std::int32_t> starts, sources;
  Floats weights;

  Table(const Shape& s, Random& random)
      : starts(size(s.landmarks + 1)), sources(size(s.votes())), weights(size(s.votes())) {
    for (std::int32_t& start : starts) start = static_cast<std::int32_t>(random.below(s.votes() + 1));
    starts.front() = 0, starts.back() = static_cast<std::int32_t>(s.votes());
    std::sort(starts.begin(), starts.end());
    for (std::int32_t& source : sources) source = static_cast<std::int32_t>(random.below(s.votes()));
    for (float& weight : weights) weight = 0.25f * (1.0f + static_cast<float>(random.below(4)));
  }
};

struct Output {
  Floats points, scores;

  explicit Output(const Shape& s)
      : points(size(s.batch * s.landmarks * 2), kUnwritten), scores(size(s.batch * s.landmarks), kUnwritten) {}
};

// What the reference says, and how far off a result may be: infinitely where a near-tie decides about a point.
struct Want {
  double value, slack;
};
using Wants = std::vector<Want>;

// The points of one image, appended to `points`.
void merge(const Shape& s, const Table& table, const Wants& votes, Wants& points) {
  for (Index n = 0; n < s.landmarks; ++n) {
    for (std::size_t axis = 0; axis < 2; ++axis) {
      Want sum{0.0, 0.0};
      for (std::size_t i = size(table.starts[size(n)]); i < size(table.starts[size(n + 1)]); ++i) {
        const Want& vote = votes[2 * size(table.sources[i]) + axis];
        sum.value += double(table.weights[i]) * vote.value;
        // The merge rounds too, by a part of what it sums.
        if (vote.slack > 0.0) sum.slack += double(table.weights[i]) * (vote.slack + 4e-6 * std::abs(vote.value));
      }
      const double extent = static_cast<double>(axis == 0 ? s.grid.width : s.grid.height);
      points.push_back({sum.value / extent, sum.slack / extent});
    }
  }
}

// What both operations share. A Case has `score(b, n, cell)`, and `vote(b, v, axis, cell)` from the corner of the cell
// for vote v, landmark v / (1 + K)'s; rounding moves either by `tolerance` at most.
template <class Case>
void reference(Case& c, double tolerance) {
  const Shape& s = c.shape;
  for (Index b = 0; b < s.batch; ++b) {
    Wants votes;
    for (Index n = 0; n < s.landmarks; ++n) {
      double best = -kInf, second = -kInf;
      Index cell = 0;
      for (Index i = 0; i < s.grid.cells(); ++i) {
        const double score = c.score(b, n, i);
        if (score > second) second = std::min(score, best);
        if (score > best) second = best, best = score, cell = i;
      }
      c.scores.push_back({best, tolerance});
      const double slack = tolerance > 0.0 && best - second <= 2 * tolerance ? double{kInf} : tolerance;
      for (Index v = n * (1 + s.neighbors); v < (n + 1) * (1 + s.neighbors); ++v) {
        votes.push_back({static_cast<double>(cell % s.grid.width) + c.vote(b, v, 0, cell), slack});
        votes.push_back({static_cast<double>(cell / s.grid.width) + c.vote(b, v, 1, cell), slack});
      }
    }
    merge(s, c.table, votes, c.points);
  }
}

template <class Args>
Args shared_args(const Shape& s, const Table& table, Output& out) {
  Args args{};
  args.batch = s.batch, args.landmarks = s.landmarks, args.neighbors = s.neighbors, args.grid = s.grid;
  args.table = {table.starts.data(), table.sources.data(), table.weights.data()};
  args.points = out.points.data(), args.scores = out.scores.data();
  return args;
}

// Rows of weights as they are stored, in a buffer of exactly that size; `values` are the numbers that it stands for.
// The fills' integers and quarters are exact in every storage, the reals are first rounded to quarters.
struct Rows {
  Floats values;
  std::vector<char> memory;

  void store(pipnet::Storage storage) {
    if (storage != pipnet::Storage::float32)
      for (float& value : values) value = 0.25f * std::nearbyint(4.0f * value);
    const std::size_t width = storage == pipnet::Storage::float32 ? 4 : storage == pipnet::Storage::float16 ? 2 : 1;
    memory.resize(values.size() * width);
    for (std::size_t i = 0; i < values.size(); ++i) {
      char* const at = memory.data() + i * width;
      const std::uint16_t half = to_half(values[i]);
      // int8 counts quarters: the scale is a quarter too.
      const std::int8_t quarters = static_cast<std::int8_t>(4.0f * values[i]);
      if (width == 4) std::memcpy(at, &values[i], 4);
      if (width == 2) std::memcpy(at, &half, 2);
      if (width == 1) std::memcpy(at, &quarters, 1);
    }
  }

  // Of small multiples of a quarter, which a half holds exactly.
  static std::uint16_t to_half(float value) {
    std::uint32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    const std::uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    return static_cast<std::uint16_t>(sign | (magnitude == 0 ? 0 : (magnitude - ((127u - 15u) << 23)) >> 13));
  }
};

struct HeadCase {
  Shape shape;
  Random random;
  View features;
  pipnet::Storage storage;
  Rows score_weight, vote_weight;
  Floats score_bias, vote_bias, score_scale, vote_scale;
  Table table;
  Wants points, scores;

  HeadCase(const Shape& s, std::uint32_t seed)
      : shape(s),
        random(seed),
        features({s.batch, s.channels, s.grid.height, s.grid.width}, s.layout, random),
        storage(static_cast<pipnet::Storage>(random.below(3))),
        score_bias(size((s.landmarks + kPanel - 1) / kPanel * kPanel)),
        vote_bias(size(s.votes() * 2)),
        table(s, random) {
    score_weight.values = Floats(score_bias.size() * size(s.channels));
    vote_weight.values = Floats(vote_bias.size() * size(s.channels));
    if (storage == pipnet::Storage::int8) {
      score_scale = Floats(score_bias.size(), 0.25f);
      vote_scale = Floats(vote_bias.size(), 0.25f);
    }
    fill();
    score_weight.store(storage);
    vote_weight.store(storage);
    reference(*this, s.fill == kReals ? 1e-6 * static_cast<double>(s.channels + 4) : 0.0);
  }

  // The rows that only fill up a panel hold numbers like all others: they must not matter.
  void fill() {
    const auto value = [this] { return shape.fill == kReals ? random.real() : random.integer(3); };
    features.fill(value);
    for (Floats* rows : {&score_weight.values, &score_bias, &vote_weight.values, &vote_bias})
      std::generate(rows->begin(), rows->end(), value);
    for (float& weight : score_weight.values) {
      if (shape.fill == kEqual) weight = 0.0f;
      if (shape.fill == kPlanted) weight = 1.0f + std::abs(weight);
    }
    for (Index i = 0; shape.fill == kPlanted && i < 2 * shape.batch; ++i) {
      const Index cell = random.below(shape.grid.cells());
      for (Index c = 0; c < shape.channels; ++c) features.set(i / 2, c, cell, 3.0f);
    }
    for (float& bias : score_bias)
      if (shape.fill == kSpecial && random.below(4) == 0) bias = random.special();
    for (Index i = 0; shape.fill == kSpecial && i < shape.batch * shape.grid.cells() / 4; ++i)
      features.set(i % shape.batch, random.below(shape.channels), random.below(shape.grid.cells()), random.special());
  }

  double score(Index b, Index n, Index cell) const {
    const Index first = n / kPanel * shape.channels * kPanel + n % kPanel;
    return dot(score_bias[size(n)], score_weight.values, first, kPanel, b, cell);
  }
  double vote(Index b, Index v, Index axis, Index cell) const {
    return dot(vote_bias[size(2 * v + axis)], vote_weight.values, (2 * v + axis) * shape.channels, 1, b, cell);
  }
  double dot(double sum, const Floats& rows, Index start, Index step, Index b, Index cell) const {
    for (Index c = 0; c < shape.channels; ++c) sum += double(rows[size(start + c * step)]) * features.at(b, c, cell);
    return sum;
  }

  std::string note() const { return " storage=" + std::to_string(static_cast<int>(storage)); }

  Output run(int threads) const {
    Output out(shape);
    auto args = shared_args<pipnet::HeadDecodeArgs>(shape, table, out);
    args.channels = shape.channels;
    args.features = features.data(), args.strides = features.core_strides();
    args.storage = storage;
    args.score_weight = score_weight.memory.data(), args.score_bias = score_bias.data();
    args.vote_weight = vote_weight.memory.data(), args.vote_bias = vote_bias.data();
    args.score_scale = score_scale.empty() ? nullptr : score_scale.data();
    args.vote_scale = vote_scale.empty() ? nullptr : vote_scale.data();
    pipnet::head_decode(args, threads);
    return out;
  }
};

struct MapsCase {
  Shape shape;
  Random random;
  std::array<View, 5> maps;
  Table table;
  Wants points, scores;

  MapsCase(const Shape& s, std::uint32_t seed)
      : shape(s), random(seed), maps{map(1), map(1), map(1), map(s.neighbors), map(s.neighbors)}, table(s, random) {
    fill();
    reference(*this, 0.0);  // scores are copied, and a corner plus a quarter is exact
  }

  View map(Index rows) {
    return View({shape.batch, shape.landmarks * rows, shape.grid.height, shape.grid.width}, shape.layout, random);
  }

  void fill() {
    for (View& map : maps) map.fill([this] { return 0.25f * random.integer(8); });
    maps[0].fill([this] { return any_score(); });
    for (Index plane = 0; plane < shape.batch * shape.landmarks; ++plane) {
      const Index b = plane / shape.landmarks, n = plane % shape.landmarks;
      const float all = random.below(2) == 0 ? kNan : -kInf;
      if (shape.fill == kSpecial && random.below(4) == 0)
        for (Index cell = 0; cell < shape.grid.cells(); ++cell) maps[0].set(b, n, cell, all);
      for (int i = 0; shape.fill == kPlanted && i < 2; ++i)
        maps[0].set(b, n, random.below(shape.grid.cells()), 100.0f);
    }
  }
  float any_score() {
    if (shape.fill == kEqual) return -2.0f;
    if (shape.fill == kReals) return random.real();
    return shape.fill == kSpecial && random.below(4) == 0 ? random.special() : random.integer(3);
  }

  double score(Index b, Index n, Index cell) const { return maps[0].at(b, n, cell); }
  double vote(Index b, Index v, Index axis, Index cell) const {
    const Index n = v / (1 + shape.neighbors), k = v % (1 + shape.neighbors) - 1;
    return k < 0 ? maps[size(1 + axis)].at(b, n, cell) : maps[size(3 + axis)].at(b, n * shape.neighbors + k, cell);
  }

  std::string note() const { return ""; }

  Output run(int threads) const {
    Output out(shape);
    auto args = shared_args<pipnet::DecodeArgs>(shape, table, out);
    for (std::size_t i = 0; i < maps.size(); ++i) {
      args.maps[i] = maps[i].data();
      args.strides[i] = maps[i].core_strides();
    }
    pipnet::decode(args, threads);
    return out;
  }
};

// The first entry that is wrong; empty if none is.
std::string fault(const char* name, const Floats& got, const Wants& wants) {
  if (got.size() != wants.size()) return std::string(name) + ": the reference has another size ";
  for (std::size_t i = 0; i < got.size(); ++i) {
    const Want& want = wants[i];
    const bool written = std::memcmp(&got[i], &kUnwritten, sizeof kUnwritten) != 0;
    const bool equal = std::isnan(want.value) ? std::isnan(got[i]) : got[i] == static_cast<float>(want.value);
    if (written && (equal || std::abs(double(got[i]) - want.value) <= want.slack)) continue;
    const std::string what = written ? std::to_string(got[i]) : "not written";
    return std::string(name) + "[" + std::to_string(i) + "] " + what + ", expected " + std::to_string(want.value) + " ";
  }
  return "";
}

template <class Case>
void check_case(const char* operation, const Shape& shape) {
  static std::uint32_t seed = 0;
  const Case c(shape, ++seed);
  for (const pipnet::Isa* isa : pipnet::available_isas()) {
    pipnet::use_isa(isa->name);
    for (int threads : {1, 2, 5}) {
      Output out(shape);
      // A new thread has no scratch memory yet and gets exactly what it asks for: overruns of it are seen too.
      if (threads == 2) std::thread([&] { out = c.run(threads); }).join();
      else out = c.run(threads);
      const std::string how = std::string(operation) + " " + isa->name + " threads=" +
                              std::to_string(threads) + " " + shape.text() + " seed=" + std::to_string(seed) + c.note();
      const std::string wrong = fault("scores", out.scores, c.scores) + fault("points", out.points, c.points);
      report(how, wrong.empty(), wrong);
    }
  }
}

void sweep() {
  Random random(1);
  const auto any_fill = [&] { return static_cast<Fill>(random.below(5)); };
  for (Index batch : {0, 1, 3})
    for (Index landmarks : {1, 15, 16, 17, 98})
      for (Index neighbors : {0, 1, 5})
        for (Grid grid : {Grid{1, 1}, Grid{1, 7}, Grid{5, 9}, Grid{8, 8}, Grid{13, 13}})
          for (Layout layout : {kNchw, kChannelsLast, kPadded, kBroadcast, kMixed}) {
            check_case<MapsCase>("decode", {batch, 0, landmarks, neighbors, grid, layout, any_fill()});
            if (layout == kMixed) continue;  // features are one tensor
            for (Index channels : {1, 3, 16, 33, 64})
              check_case<HeadCase>("head_decode", {batch, channels, landmarks, neighbors, grid, layout, any_fill()});
          }
  check_case<HeadCase>("head_decode", {1, 16, 17, 1, {64, 64}, kChannelsLast, kIntegers});
  check_case<HeadCase>("head_decode", {1, 3, 17, 5, {64, 64}, kNchw, kPlanted});
  check_case<MapsCase>("decode", {1, 0, 17, 5, {64, 64}, kNchw, kReals});
  check_case<MapsCase>("decode", {11, 0, 98, 1, {5, 9}, kMixed, kIntegers});  // planes enough for five threads
}

bool same(const Output& a, const Output& b) { return a.points == b.points && a.scores == b.scores; }

// Callers that find the pool taken work alone; either way the results are those of one thread to the last bit.
void check_concurrent(const HeadCase& head, const MapsCase& maps) {
  for (const pipnet::Isa* isa : pipnet::available_isas()) {
    pipnet::use_isa(isa->name);
    const Output want_head = head.run(1), want_maps = maps.run(1);
    std::atomic<int> wrong{0};
    std::vector<std::thread> callers;
    for (int i = 0; i < 8; ++i) {
      callers.emplace_back([&] {
        for (int turn = 0; turn < 20; ++turn) wrong += !same(head.run(5), want_head) + !same(maps.run(5), want_maps);
      });
    }
    for (std::thread& caller : callers) caller.join();
    report(std::string("8 callers at once ") + isa->name + " " + head.shape.text(),
           wrong == 0, std::to_string(wrong) + " results differ from those of one thread");
  }
}

// The child has none of the pool's threads, and must neither wait for them nor crash.
void check_fork(const HeadCase& head) {
  const Output want = head.run(5);
  std::fflush(stdout);
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(same(head.run(5), want) ? 0 : 1);
  }
  int status = -1;
  const bool waited = child > 0 && waitpid(child, &status, 0) == child;
  report("head_decode in a forked child, threads=5 " + head.shape.text(), waited && status == 0,
         "wait status " + std::to_string(status));
}

void check_normalize() {
  Random random(2);
  Floats table(3 * 256);
  for (float& entry : table) entry = random.real();
  for (Index batch : {0, 1, 3}) {
    for (Index pixels : {0, 1, 17, 64}) {
      std::vector<std::uint8_t> crops(size(batch * pixels * 3));
      for (std::uint8_t& byte : crops) byte = static_cast<std::uint8_t>(random.below(256));
      Floats out(crops.size(), kUnwritten);
      pipnet::normalize(crops.data(), batch, pixels, table.data(), out.data());
      bool good = true;
      for (std::size_t i = 0; i < crops.size(); ++i) {
        const std::size_t channel = i % 3, pixel = i / 3 % size(pixels), image = i / 3 / size(pixels);
        good &= out[(image * 3 + channel) * size(pixels) + pixel] == table[channel * 256 + crops[i]];
      }
      report("normalize B=" + std::to_string(batch) + " pixels=" + std::to_string(pixels), good);
    }
  }
}

void check_unknown_isa() {
  try {
    pipnet::use_isa("bogus");
    report("use_isa", false, "took a name that it does not know");
  } catch (const std::invalid_argument&) {
    report("use_isa", true);
  }
}

}  // namespace

int main() {
  const HeadCase head({3, 33, 98, 5, {8, 8}, kNchw, kReals}, 1);
  const MapsCase maps({3, 0, 98, 5, {8, 8}, kNchw, kReals}, 1);
  sweep();
  check_concurrent(head, maps);
  if (check::kCanFork) check_fork(head);
  check_normalize();
  check_unknown_isa();
  return check::summary();
}
