// Instruction sets: the loops of all operations as compiled for each of them, and the choice of one.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "decode.h"
#include "engine/kernels.h"
#include "head_decode.h"
#include "head_loss.h"

namespace pipnet {

// A bit that CPUID sets, of a leaf's first subleaf.
struct CpuidBit {
  enum Register { eax, ebx, ecx, edx };
  std::uint32_t leaf;
  Register in;
  int bit;
};

// The inner loops of all operations.
struct Loops {
  DecodePlanes* decode_planes;
  HeadDecodePanels* head_decode_panels;
  HeadLossKernels head_loss;
  Kernels engine;
};

// Data alone, so that a CPU without it can read what it needs. Each is defined by its file in isa/, which the build
// finds by itself.
struct Isa {
  const char* name;
  int level;                      // of those that a CPU has the highest one is used
  std::uint32_t saved_registers;  // bits of XCR0: what the operating system has to keep for it
  CpuidBit needs[3];              // on x86; leaf 0 is none
  Loops loops;
};

// Those that this CPU can run, the best last; scalar is always there.
const std::vector<const Isa*>& available_isas();
// The one in use: the best, unless use_isa (or PIPNET_ISA in the environment) said otherwise.
const Isa& current_isa();
// For tests and benchmarks: switches the whole process. Throws std::invalid_argument for one that is not available.
void use_isa(const std::string& name);

}  // namespace pipnet
