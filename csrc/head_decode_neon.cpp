#include "simd/neon.h"

// The body uses the instruction set included above.
#include "head_decode_body.h"

namespace pipnet {

void head_decode_panels_neon(const HeadDecodeArgs& args, Panels& panels) {
  head_decode_panels(args, panels);
}

}  // namespace pipnet
