# freshet_torch: LibTorch's headers and libraries, behind an interface target that encoder's adapter alone links.
#
# Debian's LibTorch, or another by CMAKE_PREFIX_PATH: an unpacked archive, the folder `torch` of PyTorch's wheel, or what
# torch.utils.cmake_prefix_path says. LibTorch's own CMake package is not asked: it exports flags that are not ours, and of a
# CUDA build wants a whole CUDA toolkit with its compiler. Nothing here is compiled for a GPU: LibTorch's kernels are, and
# c10's streams and events know no CUDA header.
set(freshet_torch_hints)
foreach(prefix IN LISTS CMAKE_PREFIX_PATH Torch_DIR)
  string(REGEX REPLACE "/share/cmake(/Torch)?/?$" "" root "${prefix}")
  list(APPEND freshet_torch_hints ${root})
endforeach()
find_path(FRESHET_TORCH_INCLUDE_DIR torch/script.h HINTS ${freshet_torch_hints} PATH_SUFFIXES include)
if(NOT FRESHET_TORCH_INCLUDE_DIR)
  message(FATAL_ERROR "LibTorch is missing (torch/script.h): run deploy/setup, or point CMAKE_PREFIX_PATH at one")
endif()
# The libraries that lie beside these headers, not those of another LibTorch.
cmake_path(GET FRESHET_TORCH_INCLUDE_DIR PARENT_PATH freshet_torch_root)
foreach(library torch torch_cpu c10)
  find_library(FRESHET_TORCH_LIBRARY_${library} ${library} HINTS ${freshet_torch_root} PATH_SUFFIXES lib NO_DEFAULT_PATH)
  find_library(FRESHET_TORCH_LIBRARY_${library} ${library} REQUIRED)
endforeach()

add_library(freshet_torch INTERFACE)
target_include_directories(freshet_torch SYSTEM INTERFACE ${FRESHET_TORCH_INCLUDE_DIR}
                                                          ${FRESHET_TORCH_INCLUDE_DIR}/torch/csrc/api/include)
cmake_path(GET FRESHET_TORCH_LIBRARY_torch PARENT_PATH freshet_torch_libraries)
# A device is there when its library is loaded, and nothing of it is called by name: a linker must not leave it out.
if(EXISTS ${freshet_torch_libraries}/libtorch_cuda.so)
  target_link_libraries(freshet_torch INTERFACE
    "-Wl,--push-state,--no-as-needed,${freshet_torch_libraries}/libtorch_cuda.so,${freshet_torch_libraries}/libc10_cuda.so,--pop-state")
  message(STATUS "LibTorch with CUDA: ${freshet_torch_libraries}")
endif()
target_link_libraries(freshet_torch INTERFACE ${FRESHET_TORCH_LIBRARY_torch} ${FRESHET_TORCH_LIBRARY_torch_cpu}
                                              ${FRESHET_TORCH_LIBRARY_c10})
