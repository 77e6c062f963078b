// `freshet broker`: the embedded broker in its own process, so that killing an engine does not take the log along.
#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "freshet/core/file.h"
#include "freshet/core/json.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/commands.h"
#include "freshet/ingest/kafka.h"

namespace freshet {
namespace {

constexpr long long kMaxPartitions = 1000;

struct BrokerArguments {
  std::vector<std::string> topics;
  std::string address_file;
  bool json = false;
};

// "items:4"; a name alone has one partition.
Result<NewTopic> ParseTopic(const std::string& text) {
  NewTopic topic;
  const std::size_t colon = text.rfind(':');
  topic.name = text.substr(0, colon);
  if (colon != std::string::npos) {
    const auto partitions = ParseInt(std::string_view(text).substr(colon + 1));
    if (!partitions || *partitions < 1 || *partitions > kMaxPartitions) {
      return InvalidArgument(StrCat(text, ": PARTITIONS must be a number from 1 to ", kMaxPartitions));
    }
    topic.partitions = static_cast<std::int32_t>(*partitions);
  }
  if (topic.name.empty()) return InvalidArgument(StrCat(text, ": the name is missing, as in items:4"));
  return topic;
}

Result<std::vector<NewTopic>> ParseTopics(const std::vector<std::string>& texts) {
  std::vector<NewTopic> topics;
  std::set<std::string> names;
  for (const std::string& text : texts) {
    FRESHET_ASSIGN(NewTopic topic, ParseTopic(text));
    if (!names.insert(topic.name).second) return InvalidArgument(StrCat(topic.name, ": given twice"));
    topics.push_back(std::move(topic));
  }
  return topics;
}

Status RunBroker(const BrokerArguments& arguments, const std::vector<NewTopic>& topics) {
  InstallStopSignals();
  FRESHET_ASSIGN(const std::unique_ptr<MockBroker> broker, StartMockBroker());
  for (const NewTopic& topic : topics) FRESHET_TRY(broker->CreateTopic(topic.name, topic.partitions));

  const std::string address = broker->bootstrap_servers();
  if (!arguments.address_file.empty()) FRESHET_TRY(WriteFileAtomically(arguments.address_file, address + "\n"));
  if (arguments.json) {
    JsonWriter json;
    json.BeginObject().Key("bootstrap_servers").String(address).Key("topics").BeginObject();
    for (const NewTopic& topic : topics) json.Key(topic.name).Int(topic.partitions);
    json.EndObject().EndObject();
    std::printf("%s\n", json.Take().c_str());
  } else {
    std::printf("%s\n", address.c_str());
  }
  std::fflush(stdout);
  std::fprintf(
      stderr,
      "freshet: the embedded broker is for trying things out, not for keeping data: it holds 5 MiB a partition and\n"
      "drops the oldest records beyond, does not compact, speaks neither TLS nor SASL, and forgets everything when\n"
      "it ends. For anything else use Apache Kafka. Ctrl-C or SIGTERM ends it.\n");
  while (!StopRequested()) std::this_thread::sleep_for(std::chrono::milliseconds(50));
  return Status::Ok();
}

}  // namespace

void AddBrokerCommand(CLI::App* app, CommandRunner* run) {
  auto arguments = std::make_shared<BrokerArguments>();
  CLI::App* command = app->add_subcommand(
      "broker", "Run the embedded broker on a free loopback port: for trying things out, not for keeping data");
  command->add_option("--topic", arguments->topics, "NAME:PARTITIONS to create; may be repeated")->required();
  command->add_option("--address-file", arguments->address_file,
                      "Write host:port to this file, once it can be connected to");
  command->add_flag("--json", arguments->json, "Print the address and the topics as one JSON object");
  command->footer(
      "Example:\n"
      "  freshet broker --address-file /tmp/broker.address --topic items:4 interactions:4 users:4 vectors:4 \\\n"
      "    user-events:4 dead-letters:1 &\n"
      "It prints its address, for --bootstrap-servers and kafka.bootstrap_servers.");
  command->callback([arguments, run] {
    Result<std::vector<NewTopic>> topics = ParseTopics(arguments->topics);
    if (!topics.ok()) throw CLI::ValidationError("--topic", topics.status().message());
    *run = [arguments, topics = std::move(*topics)] { return ExitCode(RunBroker(*arguments, topics)); };
  });
}

}  // namespace freshet
