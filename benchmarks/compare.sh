#!/usr/bin/env bash
# The comparisons that this project claims. Keep the machine quiet meanwhile; minutes are those of two CPU cores.
#
#   benchmarks/compare.sh paper       published beside counted, tables 2 to 6 of the LeMeViT paper    1 min, no timing
#   benchmarks/compare.sh inference   LeMeViT beside Swin, each as fast as it gets                    18 min
#   benchmarks/compare.sh training    steps of LeMeViT beside Swin-T                                  19 min
#   benchmarks/compare.sh peers       LeMeViT beside all peers of the paper's tables 3 and 4, figure  25 min
#   benchmarks/compare.sh gpu         all of them on a GPU at batch 64 and 256                        20 min on one H100 (estimated)
set -euo pipefail
cd "$(dirname "$0")/.."
TERRALEAN=${TERRALEAN:-terralean}
RESULTS=${RESULTS:-benchmarks/results}
SWIN_T=swin_tiny_patch4_window7_224
SWIN_B=swin_base_patch4_window7_224

case "${1:-}" in
  paper)
    "$TERRALEAN" benchmark --paper --csv "$RESULTS/paper_ledger.csv"
    ;;
  inference)
    "$TERRALEAN" benchmark lemevit "$SWIN_T" "$SWIN_B" --device cpu --csv "$RESULTS/inference_cpu.csv"
    ;;
  training)
    "$TERRALEAN" benchmark lemevit_tiny lemevit_small "$SWIN_T" --device cpu --train --csv "$RESULTS/training_cpu.csv"
    ;;
  peers)
    "$TERRALEAN" benchmark lemevit imagenet-peers scene-peers --device cpu --mode eager --mode folded+channels-last \
      --csv "$RESULTS/peers_cpu.csv" --figure "$RESULTS/peers_cpu.svg"
    ;;
  gpu)
    status=0
    for work in "" --train; do
      "$TERRALEAN" benchmark lemevit imagenet-peers scene-peers --device cuda --precision bf16 --precision fp16 \
        --batch 64 --batch 256 --mode eager --mode channels-last $work --csv "$RESULTS/peers_gpu${work#--}.csv" || status=$?
    done
    exit "$status"
    ;;
  *)
    sed -n '2,8p' "$0" >&2
    exit 2
    ;;
esac
