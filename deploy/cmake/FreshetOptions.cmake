# Compiler settings that hold for every target of ours.
option(FRESHET_BUILD_TESTS "Build the tests" ${PROJECT_IS_TOP_LEVEL})
set(FRESHET_COMPONENTS all CACHE STRING
    "all; indexer: the index and what it needs, see indexer/README.md; encoder,indexer: the towers too, see encoder/README.md")
if(NOT FRESHET_COMPONENTS MATCHES "^(all|indexer|encoder,indexer)$")
  message(FATAL_ERROR "FRESHET_COMPONENTS is `${FRESHET_COMPONENTS}`; it may be all, indexer or encoder,indexer")
endif()
option(FRESHET_GRPC "Serve gRPC beside HTTP; see query/README.md" OFF)
option(FRESHET_TORCH_NEWEST "Tests of the encoder carry the label torch-newest; see tests/README.md" OFF)
set(FRESHET_SANITIZER "" CACHE STRING "address (with undefined) or thread; empty for none")

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
set(CMAKE_RUNTIME_OUTPUT_DIRECTORY ${CMAKE_BINARY_DIR})
if(PROJECT_IS_TOP_LEVEL)
  set_property(GLOBAL PROPERTY GLOBAL_DEPENDS_NO_CYCLES ON)
endif()

# Any x86-64-v2 machine runs what is built here; wider instructions are chosen at run time.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  add_compile_options(-march=x86-64-v2)
endif()

find_program(FRESHET_CCACHE ccache)
if(FRESHET_CCACHE AND NOT CMAKE_CXX_COMPILER_LAUNCHER)
  set(CMAKE_CXX_COMPILER_LAUNCHER ${FRESHET_CCACHE})
  set(CMAKE_C_COMPILER_LAUNCHER ${FRESHET_CCACHE})
endif()

if(FRESHET_SANITIZER STREQUAL "address")
  add_compile_options(-fsanitize=address,undefined -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
elseif(FRESHET_SANITIZER STREQUAL "thread")
  add_compile_options(-fsanitize=thread -fno-omit-frame-pointer)
  add_link_options(-fsanitize=thread)
elseif(NOT FRESHET_SANITIZER STREQUAL "")
  message(FATAL_ERROR "FRESHET_SANITIZER is `${FRESHET_SANITIZER}`; it may be address, thread or empty")
endif()

option(FRESHET_FUZZ "Build the fuzz targets (tests/fuzz); needs clang" OFF)
if(FRESHET_FUZZ)
  if(NOT CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
    message(FATAL_ERROR "FRESHET_FUZZ needs clang's libFuzzer: CXX=clang++")
  endif()
  add_compile_options(-fsanitize=fuzzer-no-link,address,undefined -fno-sanitize-recover=undefined
                      -fsanitize-ignorelist=${CMAKE_SOURCE_DIR}/tests/fuzz/ubsan_ignore.txt -fno-omit-frame-pointer)
  add_link_options(-fsanitize=address,undefined)
endif()

add_library(freshet_warnings INTERFACE)
# In the project of another, whose compiler may know more warnings, they are no errors.
target_compile_options(freshet_warnings INTERFACE -Wall -Wextra -Wshadow -Wconversion
                                                  $<$<BOOL:${PROJECT_IS_TOP_LEVEL}>:-Werror>)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # GCC bug 105651: `"text" + std::string` is reported as an overlapping memcpy.
  target_compile_options(freshet_warnings INTERFACE -Wno-restrict)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND FRESHET_SANITIZER STREQUAL "address")
  # With the checks in between GCC sees paths that are none: a variant of vectors "may be used uninitialized". The other builds warn.
  target_compile_options(freshet_warnings INTERFACE -Wno-maybe-uninitialized)
endif()
