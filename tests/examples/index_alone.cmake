# Configures the example as a project of its own in an empty tree, builds and runs it; and sees that nothing was looked for
# that the index does not need.
file(REMOVE_RECURSE ${TREE})
set(compilers -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_C_COMPILER=${C_COMPILER})
execute_process(COMMAND ${CMAKE_COMMAND} -S ${SOURCE}/tests/examples/index -B ${TREE} -G ${GENERATOR} ${compilers}
                        -DCMAKE_BUILD_TYPE=Release -DFRESHET_SOURCE=${SOURCE}
                COMMAND_ERROR_IS_FATAL ANY)
file(READ ${TREE}/CMakeCache.txt cache)
foreach(package Boost CLI11 CURL GTest OpenSSL PROTOBUF RDKAFKA ROCKSDB Torch ZSTD prometheus-cpp spdlog yaml-cpp)
  if(cache MATCHES "${package}(_DIR|_FOUND|_INCLUDE_DIR|_LIBRARY|_VERSION)")
    message(FATAL_ERROR "the index alone looked for ${package}")
  endif()
endforeach()
execute_process(COMMAND ${CMAKE_COMMAND} --build ${TREE} COMMAND_ERROR_IS_FATAL ANY)
# The components that were not asked for are not built.
foreach(library core ingest encoder store query deploy)
  file(GLOB_RECURSE built ${TREE}/*libfreshet_${library}.a)
  if(built)
    message(FATAL_ERROR "the index alone built ${built}")
  endif()
endforeach()
file(GLOB_RECURSE program ${TREE}/index_example)
execute_process(COMMAND ${program} ${TREE}/example.idx COMMAND_ERROR_IS_FATAL ANY)
