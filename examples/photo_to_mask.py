"""From a photograph to its mask by the mathematics alone: CAM → affinity → walk → dense CRF, every step in sight.

    python examples/photo_to_mask.py PHOTO LABEL[,LABEL…] [CONFIG]

The networks are those of a finished run, `make demo`'s by default. `raypipe.segment_image` does the same in one call,
and knows what else a config may ask for: a walk of each photograph's own (`refinement.gate`), maps that are refitted.
"""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import raypipe
from raypipe import ops
from raypipe.data.images import decode_image
from raypipe.networks import network_input
from raypipe.reports.pictures import draw_cam, draw_mask
from raypipe.stages.networks import load_affinity_net, load_classifier

photo, labels = sys.argv[1], sys.argv[2].split(",")
run = raypipe.open_run(sys.argv[3] if len(sys.argv) > 3 else "demo/run/config.yaml")
cpu, walk = torch.device("cpu"), run.config.walk
classifier = load_classifier(run.finished.maps.uri, device="cpu")
affinity_net = load_affinity_net(run.finished.affinity.uri, device="cpu")
channels = [run.classes.index(name) for name in labels]
class_ids = np.array([0, *(channel + 1 for channel in channels)], np.uint8)

pixels = decode_image(Path(photo).read_bytes()).pixels
size = pixels.shape[:2]

with torch.inference_mode():
    # Class activation maps of the labels, at several scales and mirrored (AffinityNet §3.1).
    passes = []
    for scale in run.config.cams.scales:
        x, scaled = network_input(pixels, preprocessing=classifier.preprocessing, device=cpu, scale=scale)
        passes += [ops.Pass(classifier.cam(x)[0, channels], scaled)]
        passes += [ops.Pass(classifier.cam(x.flip(-1))[0, channels], scaled, mirrored=True)]
    cam = ops.normalize_cams(ops.merge_cams(passes, image_size=size, stride=8, out_stride=4))

    # Which neighbouring cells of 8 pixels look as if they belonged together (§3.3).
    x, _ = network_input(pixels, preprocessing=affinity_net.preprocessing, device=cpu)
    affinity = affinity_net.pair(affinity_net(x)[0], radius=run.config.affinity.radius)

    # The maps and a background walk along the affinities (§3.4).
    start = ops.pool_to_grid(ops.stack_background(cam, alpha=walk.alpha), stride=2)
    walked = ops.propagate(start, affinity, beta=walk.beta, num_steps=walk.num_steps)
    scores = ops.upsample_to_image(walked, size=size).numpy()

(refined,) = ops.dense_crf_many(pixels, [scores / scores.sum(axis=0)])
mask = class_ids[refined.argmax(axis=0)]

Image.fromarray(mask).save("mask.png")
pictures = [pixels, draw_cam(pixels, cam.numpy(), tuple(class_ids[1:])), draw_mask(pixels, class_ids[scores.argmax(0)])]
Image.fromarray(np.hstack([*pictures, draw_mask(pixels, mask)])).save("steps.png")
for name, class_id in zip(["background", *labels], class_ids, strict=True):
    print(f"{name}: {np.mean(mask == class_id):.1%} of the photograph")
print("mask.png: class ids; steps.png: photograph, maps, after the walk, after the dense CRF")
