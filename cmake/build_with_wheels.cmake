# What building messages takes where ROS 2 comes from PyPI's wheels.
#
# Use: cmake -DCMAKE_PROJECT_INCLUDE=<this file>   (CMake >= 3.19 for DEFER; scripts/setup/prerequisites.sh asks for 3.21)

# The wheels export `<package>__rosidl_generator_py` targets whose include folders are those of the machine that built the wheels
# (/opt/python/cp3XX/...). CMake refuses an imported target that names a missing folder, so drop them: the Python headers come from
# the interpreter that the build uses anyway.
function(feature_frontend_fix_wheel_include_folders)
  get_property(targets DIRECTORY "${CMAKE_SOURCE_DIR}" PROPERTY IMPORTED_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(include_folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
    if(include_folders MATCHES "/opt/python/")
      list(FILTER include_folders EXCLUDE REGEX "^/opt/python/")
      set_target_properties(${target} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${include_folders}")
    endif()
  endforeach()
endfunction()

# The C++ type supports as one source each: a third less work for the compiler. (The C ones repeat names.)
function(feature_frontend_join_sources)
  get_property(targets DIRECTORY "${CMAKE_SOURCE_DIR}" PROPERTY BUILDSYSTEM_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(kind ${target} TYPE)
    if(kind STREQUAL SHARED_LIBRARY AND target MATCHES "__rosidl_typesupport_.*(_cpp|fastrtps_c)$")
      set_target_properties(${target} PROPERTIES UNITY_BUILD ON UNITY_BUILD_BATCH_SIZE 0)
    endif()
  endforeach()
endfunction()

# Every project() call includes this file; the targets are known once the top directory has been read, and once is enough.
get_property(deferred GLOBAL PROPERTY feature_frontend_deferred)
if(NOT deferred AND CMAKE_CURRENT_SOURCE_DIR STREQUAL CMAKE_SOURCE_DIR)
  set_property(GLOBAL PROPERTY feature_frontend_deferred TRUE)
  cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL feature_frontend_fix_wheel_include_folders)
  cmake_language(DEFER DIRECTORY "${CMAKE_SOURCE_DIR}" CALL feature_frontend_join_sources)
endif()
unset(deferred)
