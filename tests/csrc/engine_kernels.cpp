// The engine's small kernels against naive loops in double precision: odd sizes, ranges of rows, every activation and
// instruction set. Built under sanitizers like sanitize.cpp; every buffer is as large as its shape says, and what a
// call should leave alone is NaN before and after.
#include "engine/kernels.h"

#include "check.h"

namespace {

using check::Doubles;
using check::Floats;
using check::Index;
using check::activated;
using check::compare;
using check::eighths;
using check::kActivations;
using check::kUntouched;
using check::size;
using check::text;
using pipnet::Activation;
using pipnet::kBlock;

struct Map {
  Index height, width;
};

constexpr Map kMaps[] = {{1, 1}, {1, 7}, {7, 1}, {2, 2}, {5, 3}, {4, 14}, {8, 8}, {9, 17}, {17, 9}, {6, 39}, {64, 64}};

struct Range {
  Index first, last;
};

std::vector<Range> ranges(Index rows) {
  std::vector<Range> all{{0, rows}, {0, 0}, {rows - 1, rows}};
  if (rows > 2) all.push_back({1, rows - 1});
  return all;
}

void check_depthwise(const std::string& isa, const pipnet::Kernels& kernels) {
  for (Map map : kMaps) {
    for (Index kernel : {3, 5}) {
      for (Index stride : {1, 2}) {
        const Index padding = kernel / 2;
        const Index out_height = (map.height + 2 * padding - kernel) / stride + 1;
        const Index out_width = (map.width + 2 * padding - kernel) / stride + 1;
        const Floats input = eighths(map.height * map.width * kBlock), weight = eighths(kernel * kernel * kBlock),
                     bias = eighths(kBlock);
        Doubles plain(size(out_height * out_width * kBlock));
        for (Index i = 0; i < out_height * out_width * kBlock; ++i) {
          const Index y = i / kBlock / out_width, x = i / kBlock % out_width, channel = i % kBlock;
          plain[size(i)] = bias[size(channel)];
          for (Index tap = 0; tap < kernel * kernel; ++tap) {
            const Index row = y * stride - padding + tap / kernel, column = x * stride - padding + tap % kernel;
            if (row < 0 || row >= map.height || column < 0 || column >= map.width) continue;
            plain[size(i)] += double(input[size((row * map.width + column) * kBlock + channel)]) *
                              weight[size(tap * kBlock + channel)];
          }
        }
        for (Activation activation : kActivations) {
          for (Range range : ranges(out_height)) {
            Floats output(plain.size(), NAN), sums(size(kBlock), NAN);
            Doubles want(plain.size(), kUntouched), want_sums(size(kBlock));
            for (Index i = range.first * out_width * kBlock; i < range.last * out_width * kBlock; ++i) {
              want[size(i)] = activated(activation, plain[size(i)]);
              want_sums[size(i % kBlock)] += want[size(i)];
            }
            pipnet::DepthwiseTask task{input.data(), map.height,    map.width,   output.data(), out_height,
                                       out_width,    kernel,        stride,      weight.data(), bias.data(),
                                       activation,   range.first,   range.last,  sums.data()};
            const std::string what = isa + " depthwise " + text(kernel) + "x" + text(kernel) + " stride " +
                                     text(stride) + " of " + text(map.height) + "x" + text(map.width) + " activation " +
                                     text(static_cast<Index>(activation)) + " rows " + text(range.first) + " to " +
                                     text(range.last);
            kernels.depthwise(task);
            compare(what, output, want);
            compare(what + ", sums", sums, want_sums);
            std::fill(output.begin(), output.end(), NAN);
            task.sums = nullptr;
            kernels.depthwise(task);
            compare(what + ", without sums", output, want);
          }
        }
      }
    }
  }
}

void check_max_pool(const std::string& isa, const pipnet::Kernels& kernels) {
  for (Map map : kMaps) {
    const Index out_height = (map.height - 1) / 2 + 1, out_width = (map.width - 1) / 2 + 1;
    Floats input = eighths(map.height * map.width * kBlock);
    for (float& value : input) value -= 8.0f;  // below zero, which padding is not
    for (Range range : ranges(out_height)) {
      Floats output(size(out_height * out_width * kBlock), NAN);
      Doubles want(output.size(), kUntouched);
      for (Index i = range.first * out_width * kBlock; i < range.last * out_width * kBlock; ++i) {
        const Index y = i / kBlock / out_width, x = i / kBlock % out_width, channel = i % kBlock;
        want[size(i)] = -INFINITY;
        for (Index row = std::max<Index>(2 * y - 1, 0); row <= std::min(2 * y + 1, map.height - 1); ++row)
          for (Index column = std::max<Index>(2 * x - 1, 0); column <= std::min(2 * x + 1, map.width - 1); ++column)
            want[size(i)] =
                std::max(want[size(i)], double(input[size((row * map.width + column) * kBlock + channel)]));
      }
      kernels.max_pool({input.data(), map.height, map.width, output.data(), out_height, out_width, range.first,
                        range.last});
      compare(isa + " max_pool of " + text(map.height) + "x" + text(map.width) + " rows " + text(range.first) + " to " +
                  text(range.last),
              output, want);
    }
  }
}

void check_linear(const std::string& isa, const pipnet::Kernels& kernels) {
  for (Index inputs : {1, 2, 8, 17, 243}) {
    for (Index blocks : {1, 2, 4, 11}) {
      const Floats weight = eighths(blocks * inputs * kBlock), bias = eighths(blocks * kBlock);
      Floats input = eighths(inputs);
      for (float& value : input) value /= 16.0f;  // hard sigmoid is a line for some outputs
      for (pipnet::GateStep step : {pipnet::GateStep::relu, pipnet::GateStep::hard_sigmoid}) {
        for (Range range : ranges(blocks)) {
          Floats output(size(blocks * kBlock), NAN);
          Doubles want(output.size(), kUntouched);
          for (Index i = range.first * kBlock; i < range.last * kBlock; ++i) {
            double sum = bias[size(i)];
            for (Index j = 0; j < inputs; ++j)
              sum += double(input[size(j)]) * weight[size((i / kBlock * inputs + j) * kBlock + i % kBlock)];
            want[size(i)] = step == pipnet::GateStep::relu ? std::max(sum, 0.0)
                                                           : std::min(std::max(sum + 3.0, 0.0), 6.0) / 6.0;
          }
          kernels.linear(
              {input.data(), inputs, weight.data(), bias.data(), step, output.data(), range.first, range.last});
          compare(isa + " linear of " + text(inputs) + " step " + text(static_cast<Index>(step)) + " blocks " +
                      text(range.first) + " to " + text(range.last),
                  output, want);
        }
      }
    }
  }
}

void check_scale(const std::string& isa, const pipnet::Kernels& kernels) {
  for (Index pixels : {0, 1, 5, 64}) {
    for (Activation activation : kActivations) {
      Floats input = eighths(pixels * kBlock), output(input.size(), NAN);
      const Floats gate = eighths(kBlock);
      if (pixels > 1) input[17] = NAN;  // stays one, whatever the activation
      Doubles want;
      for (std::size_t i = 0; i < input.size(); ++i) {
        const double scaled = double(input[i]) * gate[i % size(kBlock)];
        want.push_back(std::isnan(scaled) ? scaled : activated(activation, scaled));
      }
      const std::string what =
          isa + " scale of " + text(pixels) + " activation " + text(static_cast<Index>(activation));
      kernels.scale({input.data(), output.data(), pixels, gate.data(), activation});
      compare(what, output, want);
      kernels.scale({input.data(), input.data(), pixels, gate.data(), activation});
      compare(what + " in place", input, want);
    }
  }
}

void check_pixel_row(const std::string& isa, const pipnet::Kernels& kernels) {
  const float scale[3] = {0.25f, 2.0f, -0.5f}, shift[3] = {-1.0f, 0.125f, 3.0f};
  for (Index width : {1, 5, 15, 16, 17, 47, 48, 256}) {
    for (Index padding : {0, 1, 3}) {
      const Index plane = width + 5;
      const Floats planes = eighths(2 * plane + width);
      std::vector<std::uint8_t> bytes;
      for (Index i = 0; i < 3 * width; ++i) bytes.push_back(static_cast<std::uint8_t>(255 - i % 256));
      Doubles of_bytes(size(3 * (width + 2 * padding))), of_planes(of_bytes.size());
      for (Index i = 0; i < 3 * width; ++i) {
        const std::size_t at = size(3 * padding + i), color = size(i % 3);
        of_bytes[at] = double(bytes[size(i)]) * scale[color] + shift[color];
        of_planes[at] = planes[size(i % 3 * plane + i / 3)];
      }
      const std::string what = isa + " pixel_row of " + text(width) + " padding " + text(padding);
      Floats output(of_bytes.size(), NAN);
      kernels.pixel_row({bytes.data(), nullptr, 0, width, padding, scale, shift, output.data()});
      compare(what + " bytes", output, of_bytes);
      std::fill(output.begin(), output.end(), NAN);
      kernels.pixel_row({nullptr, planes.data(), plane, width, padding, scale, shift, output.data()});
      compare(what + " planes", output, of_planes);
    }
  }
}

}  // namespace

int main() {
  for (const pipnet::Isa* isa : pipnet::available_isas()) {
    const std::string name = isa->name;
    const pipnet::Kernels& kernels = isa->loops.engine;
    check_depthwise(name, kernels);
    check_max_pool(name, kernels);
    check_linear(name, kernels);
    check_scale(name, kernels);
    check_pixel_row(name, kernels);
  }
  return check::summary();
}
