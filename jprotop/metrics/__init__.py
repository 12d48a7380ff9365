"""The field's published metrics, as pure functions of arrays: for a network of any framework.

```python
from jprotop.metrics import consistency
found = consistency(maps, parts, labels, prototype_class)  # maps float [N, h, w, P]
found.value, found.total, found.interval
```

NumPy and JAX arrays are taken alike. Where a paper and its released code differ, `definition` is
"paper" or "released"; docs/metrics/ has a page for each. Whoever cannot hold all maps at once reads
them a batch at a time: each metric has a function of rows, `merge`, and one that ends in `_of`.
"""

from jprotop.metrics import interventions, misalignment, noise, quanproto
from jprotop.metrics.compactness import global_size, local_size, sparsity, weight_counts
from jprotop.metrics.comprehensiveness_score import (
  comprehensiveness,
  comprehensiveness_of,
  comprehensiveness_rows,
)
from jprotop.metrics.consistency_score import consistency, consistency_curve, consistency_of
from jprotop.metrics.distinctiveness_score import (
  distinctiveness,
  distinctiveness_of,
  distinctiveness_rows,
)
from jprotop.metrics.estimate import Estimate
from jprotop.metrics.maps import Chosen, merge, own, peaks, strongest
from jprotop.metrics.part_hits import part_hits, part_positions
from jprotop.metrics.pointing_game import (
  energy_rows,
  mask_rows,
  pointing_game_energy,
  pointing_game_mask,
  pointing_game_of,
)
from jprotop.metrics.prototype_purity import CUB_PAIRS, patch_peaks, purity, purity_of
from jprotop.metrics.relevance import dependence, pixel_order, relevance_ordering, reveal
from jprotop.metrics.stability_score import stability, stability_of

__all__ = [
  "CUB_PAIRS",
  "Chosen",
  "Estimate",
  "comprehensiveness",
  "comprehensiveness_of",
  "comprehensiveness_rows",
  "consistency",
  "consistency_curve",
  "consistency_of",
  "dependence",
  "distinctiveness",
  "distinctiveness_of",
  "distinctiveness_rows",
  "energy_rows",
  "global_size",
  "interventions",
  "local_size",
  "mask_rows",
  "merge",
  "misalignment",
  "noise",
  "own",
  "part_hits",
  "part_positions",
  "patch_peaks",
  "peaks",
  "pixel_order",
  "pointing_game_energy",
  "pointing_game_mask",
  "pointing_game_of",
  "purity",
  "purity_of",
  "quanproto",
  "relevance_ordering",
  "reveal",
  "sparsity",
  "stability",
  "stability_of",
  "strongest",
  "weight_counts",
]
