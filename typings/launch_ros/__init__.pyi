# Of launch_ros, what this project uses; see ../launch/__init__.pyi.
