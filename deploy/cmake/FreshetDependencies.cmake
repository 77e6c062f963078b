# What we build on. `deploy/setup` installs it on Debian 12; elsewhere each find_* says what is missing.
find_package(PkgConfig REQUIRED)
# Targets that whoever links the index sees too, wherever they add it.
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL ON)
find_package(Threads REQUIRED)
set(CMAKE_FIND_PACKAGE_TARGETS_GLOBAL OFF)
pkg_check_modules(XXHASH REQUIRED IMPORTED_TARGET GLOBAL libxxhash)
if(FRESHET_COMPONENTS STREQUAL "indexer")
  return()
endif()
find_package(OpenSSL REQUIRED)
find_package(prometheus-cpp REQUIRED)
find_package(spdlog REQUIRED)
find_package(yaml-cpp REQUIRED)
pkg_check_modules(PROTOBUF REQUIRED IMPORTED_TARGET protobuf)
pkg_check_modules(ZSTD REQUIRED IMPORTED_TARGET libzstd)
if(FRESHET_COMPONENTS STREQUAL "all")
  pkg_check_modules(SIMDJSON REQUIRED IMPORTED_TARGET simdjson)
else()
  pkg_check_modules(SIMDJSON IMPORTED_TARGET simdjson)
endif()

# Debian's LibTorch, or any other (up to 2.x, CUDA) by CMAKE_PREFIX_PATH. Its exported flags are not ours: only headers and
# libraries are taken, behind an interface target that encoder's adapter alone links.
find_package(Torch REQUIRED)
add_library(freshet_torch INTERFACE)
target_include_directories(freshet_torch SYSTEM INTERFACE ${TORCH_INCLUDE_DIRS})
target_link_libraries(freshet_torch INTERFACE ${TORCH_LIBRARIES})

if(NOT FRESHET_COMPONENTS STREQUAL "all")
  return()
endif()

find_package(Boost 1.81 REQUIRED)
find_package(GTest REQUIRED)
find_package(CLI11 REQUIRED)
pkg_check_modules(RDKAFKA REQUIRED IMPORTED_TARGET rdkafka)
pkg_check_modules(CURL REQUIRED IMPORTED_TARGET libcurl)

# What is allocated on one thread is freed on another all the time (records, batches): glibc's malloc takes a lock for that, and
# keeps what it got. For programs only; a sanitizer brings its own.
add_library(freshet_allocator INTERFACE)
if(NOT FRESHET_SANITIZER)
  pkg_check_modules(JEMALLOC REQUIRED IMPORTED_TARGET jemalloc)
  target_link_libraries(freshet_allocator INTERFACE PkgConfig::JEMALLOC)
endif()

if(FRESHET_GRPC)
  # Debian's own CMake package wants the packages of all that gRPC is built from; these are what a program needs.
  find_path(GRPC_INCLUDE_DIR grpcpp/grpcpp.h)
  find_library(GRPCXX_LIBRARY grpc++)
  find_library(GRPC_LIBRARY grpc)
  find_library(GPR_LIBRARY gpr)
  find_library(GRPC_REFLECTION_LIBRARY grpc++_reflection)
  find_library(ABSL_SYNCHRONIZATION_LIBRARY absl_synchronization)  # its headers have locks inline
  find_program(FRESHET_PROTOC protoc)
  find_program(FRESHET_GRPC_PLUGIN grpc_cpp_plugin)
  foreach(part GRPC_INCLUDE_DIR GRPCXX_LIBRARY GRPC_LIBRARY GPR_LIBRARY GRPC_REFLECTION_LIBRARY ABSL_SYNCHRONIZATION_LIBRARY FRESHET_PROTOC FRESHET_GRPC_PLUGIN)
    if(NOT ${part})
      message(FATAL_ERROR "FRESHET_GRPC is ON, and gRPC is not all there (${part}): run deploy/setup --grpc, or install libgrpc++-dev, protobuf-compiler and protobuf-compiler-grpc; or build with -DFRESHET_GRPC=OFF")
    endif()
  endforeach()
  add_library(freshet_grpc INTERFACE)
  target_include_directories(freshet_grpc SYSTEM INTERFACE ${GRPC_INCLUDE_DIR})
  target_link_libraries(freshet_grpc INTERFACE ${GRPC_REFLECTION_LIBRARY} ${GRPCXX_LIBRARY} ${GRPC_LIBRARY} ${GPR_LIBRARY} ${ABSL_SYNCHRONIZATION_LIBRARY} PkgConfig::PROTOBUF)
endif()

# Debian's RocksDB exports targets that want gflags, which the library itself does not.
find_path(ROCKSDB_INCLUDE_DIR rocksdb/db.h REQUIRED)
find_library(ROCKSDB_LIBRARY rocksdb REQUIRED)
add_library(freshet_rocksdb INTERFACE)
target_include_directories(freshet_rocksdb SYSTEM INTERFACE ${ROCKSDB_INCLUDE_DIR})
target_link_libraries(freshet_rocksdb INTERFACE ${ROCKSDB_LIBRARY})

# hnswlib 0.8.0: the source archive that deploy/setup fetched, unpacked beneath the build tree.
set(FRESHET_HNSWLIB_ARCHIVE "${CMAKE_SOURCE_DIR}/build/deps/hnswlib-0.8.0.tar.gz" CACHE FILEPATH "hnswlib source archive")
set(FRESHET_HNSWLIB_SHA256 cb6d037eedebb34a7134e7dc78966441dfd04c9cf5ee93911be911ced951c44c)
if(NOT EXISTS ${FRESHET_HNSWLIB_ARCHIVE})
  message(FATAL_ERROR "${FRESHET_HNSWLIB_ARCHIVE} is missing: run deploy/setup")
endif()
file(SHA256 ${FRESHET_HNSWLIB_ARCHIVE} freshet_hnswlib_sha256)
if(NOT freshet_hnswlib_sha256 STREQUAL FRESHET_HNSWLIB_SHA256)
  message(FATAL_ERROR "${FRESHET_HNSWLIB_ARCHIVE} has SHA-256 ${freshet_hnswlib_sha256}, not ${FRESHET_HNSWLIB_SHA256}: remove it and run deploy/setup")
endif()
if(NOT EXISTS ${CMAKE_BINARY_DIR}/third_party/hnswlib-0.8.0/hnswlib/hnswlib.h)
  file(ARCHIVE_EXTRACT INPUT ${FRESHET_HNSWLIB_ARCHIVE} DESTINATION ${CMAKE_BINARY_DIR}/third_party)
endif()
add_library(freshet_hnswlib INTERFACE)
target_include_directories(freshet_hnswlib SYSTEM INTERFACE ${CMAKE_BINARY_DIR}/third_party/hnswlib-0.8.0)
if(FRESHET_SANITIZER)
  # Its prefetch reads past the end of its arrays (traps: #107, #578).
  target_compile_definitions(freshet_hnswlib INTERFACE NO_MANUAL_VECTORIZATION)
endif()
