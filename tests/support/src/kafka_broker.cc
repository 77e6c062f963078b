#include "freshet_test/kafka_broker.h"

#include <csignal>

#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet_test/process.h"
#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

std::string Script() { return SourceRoot() + "/deploy/kafka/broker"; }

}  // namespace

KafkaBroker::KafkaBroker(const std::string& directory, const std::string& version,
                         const std::vector<std::string>& settings)
    : directory_(directory), version_(version), settings_(settings) {
  Start();
}

void KafkaBroker::Tool(const std::vector<std::string>& words) const {
  std::vector<std::string> command = {Script(), "tool", "--dir", directory_};
  command.insert(command.end(), words.begin(), words.end());
  ASSERT_EQ(RunCommand(command, nullptr), 0) << words.front();
}

void KafkaBroker::DeleteTopic(const std::string& name) const {
  ASSERT_EQ(RunCommand({Script(), "topic", "--dir", directory_, name, "--delete"}, nullptr), 0);
  ASSERT_TRUE(WaitFor([&] {
    std::string topics;
    EXPECT_EQ(
        RunCommand({Script(), "tool", "--dir", directory_, "org.apache.kafka.tools.TopicCommand", "--list"}, &topics),
        0);
    return ("\n" + topics).find("\n" + name + "\n") == std::string::npos;
  }));
}

KafkaBroker::~KafkaBroker() { EXPECT_EQ(RunCommand({Script(), "stop", "--dir", directory_}, nullptr), 0); }

void KafkaBroker::Start() {
  std::vector<std::string> command = {Script(), "start", "--dir", directory_};
  if (!FileExists(directory_)) {
    for (const std::string& setting : settings_) command.insert(command.end(), {"--set", setting});
  }
  if (!version_.empty()) command.insert(command.end(), {"--version", version_});
  std::string out;
  ASSERT_EQ(RunCommand(command, &out, 300'000), 0) << out;
  bootstrap_servers_ = Trim(out);
  ASSERT_FALSE(bootstrap_servers_.empty());
}

void KafkaBroker::Kill() const { ASSERT_EQ(RunCommand({Script(), "kill", "--dir", directory_}, nullptr), 0); }

void KafkaBroker::Signal(int signal) const {
  const auto pid = ReadFile(directory_ + "/broker.pid");
  ASSERT_OK(pid);
  const auto number = ParseInt(Trim(*pid));
  ASSERT_TRUE(number && *number > 1) << *pid;
  ASSERT_EQ(::kill(static_cast<pid_t>(*number), signal), 0);
}

void KafkaBroker::CreateTopic(const std::string& name, int partitions, bool compact) const {
  std::vector<std::string> command = {
      Script(), "topic", "--dir", directory_, name, "--partitions", std::to_string(partitions)};
  if (compact) command.emplace_back("--compact");
  ASSERT_EQ(RunCommand(command, nullptr), 0);
}

}  // namespace freshet::test
