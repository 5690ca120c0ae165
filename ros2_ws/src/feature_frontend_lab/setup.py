"""Builds `feature_frontend_lab`: by colcon as an ament_python package, or by pip."""

from setuptools import find_packages, setup

package_name = "feature_frontend_lab"
tools = {
    "demo": "demo",
    "evaluate": "evaluation.commands.evaluate",
    "export": "export.command",
    "train": "training.command",
}

setup(
    name=package_name,
    version="0.1.0",
    description="The workshop of feature_frontend: training, evaluation, rendering, demo, exports",
    author="Feature Frontend maintainers",
    author_email="maintainers@example.org",
    maintainer="Feature Frontend maintainers",
    maintainer_email="maintainers@example.org",
    license="Apache-2.0",
    packages=find_packages(include=[package_name, f"{package_name}.*"]),
    package_data={package_name: ["py.typed"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
    ],
    python_requires=">=3.10",
    install_requires=[
        "feature_frontend",
        "matplotlib>=3.5",
        "numpy>=1.21",
        "opencv-python-headless>=4.5",
        "rosbags>=0.10.10",
        "torch>=2.4",
        "tqdm",
    ],
    extras_require={
        "train": ["tensorboard"],
        "megadepth": ["h5py"],
        "odometry": ["gtsam>=4.3"],
        "colmap": ["pycolmap>=3.13"],
        "onnx": ["onnx>=1.15", "onnxruntime>=1.17"],
    },
    zip_safe=False,
    entry_points={
        # `feature_frontend TOOL` finds them here.
        "feature_frontend.tools": [f"{name} = {package_name}.{module}:main" for name, module in tools.items()],
        # For `ros2 run feature_frontend_lab TOOL`.
        "console_scripts": [f"{name} = feature_frontend.__main__:main" for name in tools],
    },
)
