// Instruction sets of this CPU that there is code for.
#pragma once

#include <string>
#include <vector>

namespace pipnet {

enum class Isa { scalar, neon, avx2, avx512 };

const char* isa_name(Isa isa);
// Best last; scalar is always there.
const std::vector<Isa>& available_isas();
// The one in use: the best, unless use_isa (or PIPNET_ISA in the environment) said otherwise.
Isa current_isa();
// For tests and benchmarks: switches the whole process. Throws std::invalid_argument for one that is not available.
void use_isa(const std::string& name);

}  // namespace pipnet
