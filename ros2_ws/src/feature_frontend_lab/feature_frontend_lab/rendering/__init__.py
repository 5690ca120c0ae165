"""A small renderer: textured flat surfaces, exact depth, known poses.

    scene = default_scene(seed=0)
    camera = Camera.with_field_of_view(70, height=480, width=640)
    poses = default_trajectory(60)
    frame = render(scene, camera, poses[0])     # frame.image (H, W, 3) uint8 RGB, frame.depth (H, W) float32 m
    there = reproject(points, frame.depth, poses[0], poses[1], camera)

Whole sequences with a simulated IMU:

    flown = flight("street", seed=0)    # flown.stamps_ns, poses, velocities, imu; flown.frames(), flown.depth(0)

A stereo pair is two renders: the right camera's pose is the left one's times a shift along x.
"""

from feature_frontend_lab.rendering.camera import (
    Camera,
    Reprojection,
    default_trajectory,
    depth_at,
    invert_pose,
    look_at,
    reproject,
    smooth_path,
)
from feature_frontend_lab.rendering.euroc_sequence import write_euroc
from feature_frontend_lab.rendering.flights import FLIGHTS, Flight, flight
from feature_frontend_lab.rendering.grey_renderer import GreyScene
from feature_frontend_lab.rendering.indoor_scene import default_scene
from feature_frontend_lab.rendering.inertial import ADIS16448, GRAVITY_M_S2, exact_imu
from feature_frontend_lab.rendering.renderer import RenderedFrame, render, render_depth
from feature_frontend_lab.rendering.scene import Lamp, Quad, Scene, box, lit
from feature_frontend_lab.rendering.textures import Texture

__all__ = [
    "ADIS16448",
    "FLIGHTS",
    "GRAVITY_M_S2",
    "Camera",
    "Flight",
    "GreyScene",
    "Lamp",
    "Quad",
    "RenderedFrame",
    "Reprojection",
    "Scene",
    "Texture",
    "box",
    "default_scene",
    "default_trajectory",
    "depth_at",
    "exact_imu",
    "flight",
    "invert_pose",
    "lit",
    "look_at",
    "render",
    "render_depth",
    "reproject",
    "smooth_path",
    "write_euroc",
]
