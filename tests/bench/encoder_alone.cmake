# Builds the encoder, the index and the encoder's benchmark in an empty tree, runs that, and sees that nothing was looked for
# that they do not need. Without optimisation, which takes more time than what is to be seen here.
file(REMOVE_RECURSE ${TREE})
set(compilers -DCMAKE_CXX_COMPILER=${COMPILER} -DCMAKE_C_COMPILER=${C_COMPILER})
execute_process(COMMAND ${CMAKE_COMMAND} -S ${SOURCE} -B ${TREE} -G ${GENERATOR} ${compilers} -DCMAKE_BUILD_TYPE=Release
                        -DCMAKE_CXX_FLAGS_RELEASE=-O0 -DCMAKE_PREFIX_PATH=${PREFIX} -DFRESHET_COMPONENTS=encoder,indexer
                COMMAND_ERROR_IS_FATAL ANY)
file(READ ${TREE}/CMakeCache.txt cache)
# (prometheus-cpp looks for CURL by itself.)
foreach(package Boost CLI11 GTest RDKAFKA ROCKSDB)
  if(cache MATCHES "${package}(_DIR|_FOUND|_INCLUDE_DIR|_LIBRARY|_VERSION)")
    message(FATAL_ERROR "the encoder alone looked for ${package}")
  endif()
endforeach()
execute_process(COMMAND ${CMAKE_COMMAND} --build ${TREE} -j 2 COMMAND_ERROR_IS_FATAL ANY)
foreach(library ingest store query deploy)
  file(GLOB_RECURSE built ${TREE}/*libfreshet_${library}.a)
  if(built)
    message(FATAL_ERROR "the encoder alone built ${built}")
  endif()
endforeach()
execute_process(COMMAND ${TREE}/tests/freshet_encode_bench --quick --json COMMAND_ERROR_IS_FATAL ANY)
