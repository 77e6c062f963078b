# freshet_layer(NAME SOURCES ... HEADERS ... LEFT ... PRIVATE ...)
#
# One folder, one library, one include view: its own include/ and that of the layers it names as LEFT. Headers live in
# include/freshet/<folder>/, nothing has the repository's root on its include path, so an include to the right does not
# compile. Third-party libraries are PRIVATE: their headers stay behind the adapter.
function(freshet_layer name)
  cmake_parse_arguments(L "" "" "SOURCES;HEADERS;LEFT;PRIVATE;PUBLIC" ${ARGN})
  add_library(${name} STATIC ${L_SOURCES})
  list(TRANSFORM L_HEADERS PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/include/freshet/)
  target_sources(${name} PUBLIC FILE_SET HEADERS BASE_DIRS ${CMAKE_CURRENT_SOURCE_DIR}/include FILES ${L_HEADERS})
  target_link_libraries(${name} PUBLIC ${L_LEFT} ${L_PUBLIC} PRIVATE freshet_warnings ${L_PRIVATE})
  target_compile_features(${name} PUBLIC cxx_std_20)  # the headers need it, in whosever project
  set_target_properties(${name} PROPERTIES VERIFY_INTERFACE_HEADER_SETS ON)
endfunction()
