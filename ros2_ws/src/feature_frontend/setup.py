"""Builds `feature_frontend`: by colcon as an ament_python package, or by pip for the Python API alone."""

from glob import glob

from setuptools import find_packages, setup

package_name = "feature_frontend"

setup(
    name=package_name,
    version="0.1.0",
    description="Visual-odometry front-end: learned features, matches and tracks, as a ROS 2 node and a Python API",
    author="Feature Frontend maintainers",
    author_email="maintainers@example.org",
    maintainer="Feature Frontend maintainers",
    maintainer_email="maintainers@example.org",
    license="Apache-2.0",
    packages=find_packages(include=[package_name, f"{package_name}.*"]),
    package_data={package_name: ["py.typed", "models/*"]},
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{package_name}"]),
        (f"share/{package_name}", ["package.xml"]),
        # By pattern, not "launch/*": a __pycache__ beside the launch files is a folder, which data_files refuses.
        (f"share/{package_name}/launch", sorted(glob("launch/*.launch.*"))),
        (f"share/{package_name}/config", sorted(glob("config/*.*"))),
    ],
    python_requires=">=3.10",
    # For pip. colcon does not look at it: on a ROS machine package.xml and rosdep say what is needed.
    install_requires=["numpy>=1.21", "opencv-python-headless>=4.5", "PyYAML", "safetensors>=0.4", "torch>=2.4", "tqdm"],
    extras_require={
        "bags": ["rosbags>=0.10.10"],
        "lightglue": ["kornia>=0.9"],
        "cluster": ["ray>=2.10", "fsspec>=2023.1", "s3fs>=2023.1"],
        "parquet": ["pyarrow>=15"],
    },
    zip_safe=False,
    entry_points={
        # One start for all: the name that it is started by says which tool is meant.
        "console_scripts": [
            "frontend = feature_frontend.__main__:main",
            "play = feature_frontend.__main__:main",
            "record = feature_frontend.__main__:main",
            "process = feature_frontend.__main__:main",
            "vins = feature_frontend.__main__:main",
            "rtabmap = feature_frontend.__main__:main",
            "weights = feature_frontend.__main__:main",
            "doctor = feature_frontend.__main__:main",
            "parameters = feature_frontend.__main__:main",
            "feature_frontend = feature_frontend.__main__:main",
        ],
    },
)
