// Protobuf messages -> trees: the one place that names libprotobuf.
//
// Place in the flow: private to ingest, a wire format before the SchemaMapper. A schema is a set of message types, read
// at run time from a descriptor set or from .proto sources; nothing is generated. A tree has the fields' own names;
// enums are their names, a google.protobuf.Timestamp is Unix milliseconds, wrappers and freshet.v1.Value are what they
// hold, bytes are texts where they are UTF-8, else null. Numbers and booleans without presence are there with their
// zero, empty texts and lists are not. Constant after making, thread-safe.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "freshet/core/json.h"
#include "freshet/core/status.h"
#include "freshet/ingest/decoder.h"

namespace freshet {

class ProtobufSchema {
 public:
  // A serialized FileDescriptorSet (protoc --include_imports --descriptor_set_out). Errors: kInvalidArgument.
  [[nodiscard]] static Result<std::unique_ptr<ProtobufSchema>> FromDescriptorSet(std::string_view bytes);
  // A .proto file and, before it, what it imports, as (name, source). Errors: kInvalidArgument.
  [[nodiscard]] static Result<std::unique_ptr<ProtobufSchema>> FromSources(
      const std::vector<std::pair<std::string, std::string>>& files);
  // freshet/v1/events.proto.
  [[nodiscard]] static Result<std::unique_ptr<ProtobufSchema>> BuiltIn();

  virtual ~ProtobufSchema() = default;
  // The full name of the message that `indexes` name in the last file: {1, 0} is the first message within its second.
  // Errors: kInvalidArgument when there is none.
  [[nodiscard]] virtual Result<std::string> NameOf(const std::vector<int>& indexes) const = 0;
  [[nodiscard]] virtual bool Has(const std::string& message) const = 0;
  // Errors: kInvalidArgument. REQUIRES: Has(message).
  [[nodiscard]] virtual Result<std::unique_ptr<JsonDocument>> Parse(const std::string& message, std::string_view bytes,
                                                                    const DecodeLimits& limits) const = 0;
};

}  // namespace freshet
