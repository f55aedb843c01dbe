"""The quantizers: one file per library, named as `quant.library` names it."""
