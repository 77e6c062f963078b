// TLS and SASL against Apache Kafka: what must connect, connects; what must not, says why, exits with 69, and does not
// storm the broker.
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "freshet/core/file.h"
#include "freshet/core/strings.h"
#include "freshet/deploy/config.h"
#include "freshet/ingest/kafka.h"
#include "freshet/ingest/schema_registry.h"
#include "freshet_test/configs.h"
#include "freshet_test/kafka_broker.h"
#include "freshet_test/process.h"
#include "freshet_test/test_support.h"

namespace freshet::test {
namespace {

constexpr auto kTimeout = std::chrono::seconds(30);
constexpr char kPassword[] = "correct horse";

int FreePort() {
  const int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  ::close(fd);
  return ntohs(address.sin_port);
}

class SecurityTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    dir_ = std::make_unique<TempDir>();
    Run({"openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", At("ca.key"), "-out", At("ca.pem"),
         "-days", "2", "-subj", "/CN=freshet test authority"});
    Certify("server", "IP:127.0.0.1", "2");
    Certify("client", "DNS:client", "2");
    Certify("expired", "IP:127.0.0.1", "-1");
    Certify("elsewhere", "DNS:elsewhere.example", "2");
    for (int& port : ports_) port = FreePort();
    const auto listener = [](const char* name, int index) { return StrCat(name, "://127.0.0.1:", ports_[index]); };
    std::vector<std::string> settings = {
        StrCat("listeners=PLAINTEXT://127.0.0.1:@PORT@,CONTROLLER://127.0.0.1:@CONTROLLER_PORT@,", listener("TLS", 0),
               ",", listener("MUTUAL", 1), ",", listener("SASL", 2), ",", listener("EXPIRED", 3), ",",
               listener("ELSEWHERE", 4)),
        "listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,TLS:SSL,MUTUAL:SSL,SASL:SASL_SSL,"
        "EXPIRED:SSL,ELSEWHERE:SSL",
        "ssl.keystore.type=PEM",
        "ssl.truststore.type=PEM",
        StrCat("ssl.truststore.location=", At("ca.pem")),
        StrCat("ssl.keystore.location=", At("server.pem")),
        "listener.name.mutual.ssl.client.auth=required",
        StrCat("listener.name.expired.ssl.keystore.location=", At("expired.pem")),
        StrCat("listener.name.elsewhere.ssl.keystore.location=", At("elsewhere.pem")),
        "sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512",
        StrCat("listener.name.sasl.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule "
               "required user_freshet=\"",
               kPassword, "\";"),
        "listener.name.sasl.scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule "
        "required;"};
    broker_ = std::make_unique<KafkaBroker>(At("kafka"), "", settings);
    broker_->Tool({"kafka.admin.ConfigCommand", "--alter", "--add-config",
                   StrCat("SCRAM-SHA-512=[password=", kPassword, "]"), "--entity-type", "users", "--entity-name",
                   "freshet"});
  }
  static void TearDownTestSuite() {
    broker_.reset();
    dir_.reset();
  }

  static std::string At(const std::string& name) { return *dir_ / name; }
  static void Run(const std::vector<std::string>& command) { ASSERT_EQ(RunCommand(command, nullptr), 0) << command[0]; }
  // name.pem: key and certificate, signed by the authority.
  static void Certify(const std::string& name, const std::string& for_name, const std::string& days) {
    Run({"openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", At(name + ".key"), "-out", At(name + ".csr"),
         "-subj", "/CN=" + name});
    ASSERT_OK(WriteFileAtomically(At("ext"), "subjectAltName=" + for_name + "\n"));
    Run({"openssl", "x509", "-req", "-in", At(name + ".csr"), "-CA", At("ca.pem"), "-CAkey", At("ca.key"),
         "-CAcreateserial", "-days", days, "-out", At(name + ".crt"), "-extfile", At("ext")});
    const auto key = ReadFile(At(name + ".key"));
    const auto certificate = ReadFile(At(name + ".crt"));
    ASSERT_OK(key);
    ASSERT_OK(certificate);
    ASSERT_OK(WriteFileAtomically(At(name + ".pem"), *key + *certificate));
  }
  using Options = std::map<std::string, std::string>;
  static Options Tls(const Options& more = {}) {
    Options all = {{"security.protocol", "ssl"}, {"ssl.ca.location", At("ca.pem")}};
    for (const auto& [key, value] : more) all[key] = value;
    return all;
  }
  static Options Sasl(const std::string& mechanism, const std::string& password) {
    return Tls({{"security.protocol", "sasl_ssl"},
                {"sasl.mechanism", mechanism},
                {"sasl.username", "freshet"},
                {"sasl.password", password}});
  }
  // Writes and reads a record through that listener.
  static void ExpectWorks(int listener, const Options& options) {
    KafkaOptions kafka;
    kafka.bootstrap_servers = StrCat("127.0.0.1:", ports_[listener]);
    kafka.librdkafka_options = options;
    const std::string topic = StrCat("t", ++topics_);
    ASSERT_OK(CreateTopics(kafka, {{topic, 1, false}}, kTimeout));
    auto producer = OpenKafkaProducer(kafka);
    ASSERT_OK(producer);
    OutRecord record;
    record.topic = topic;
    record.value = "hello";
    ASSERT_OK((*producer)->Send({record}, kTimeout));
    ConsumerOptions consumer;
    consumer.kafka = kafka;
    consumer.topics = {topic};
    consumer.assign_all = true;
    SystemClock clock;
    auto source = OpenKafkaConsumer(
        consumer, [](const auto&) { return StoredPositions(); }, &clock, kTimeout);
    ASSERT_OK(source);
    EXPECT_TRUE(WaitFor([&] {
      const auto polled = (*source)->Poll(std::chrono::milliseconds(100));
      return polled.ok() && polled->kind == PollResult::Kind::kRecord && *polled->record.value == "hello";
    }));
  }
  static std::string EngineText(int listener, const Options& options) {
    std::string yaml = EngineYaml(StrCat("127.0.0.1:", ports_[listener]), At(StrCat("data", listener)));
    std::string lines = "  librdkafka_options:\n";
    for (const auto& [key, value] : options) lines += StrCat("    ", key, ": \"", value, "\"\n");
    return yaml.insert(yaml.find("topics:"), lines);
  }
  // The engine as a process: it says why, exits with 69, and asked a handful of times.
  static void ExpectRefused(int listener, const Options& options, const std::string& reason) {
    ASSERT_OK(WriteFileAtomically(At("engine.yaml"), EngineText(listener, options)));
    Process engine({FreshetBinary(), "run", "--config", At("engine.yaml")}, At("log"));
    EXPECT_EQ(engine.Wait(60'000), 69);
    const auto log = ReadFile(At("log"));
    ASSERT_OK(log);
    EXPECT_NE(log->substr(log->rfind("freshet:")).find(reason), std::string::npos) << *log;
    EXPECT_EQ(log->find(kPassword), std::string::npos);
    EXPECT_EQ(log->find("wrong password"), std::string::npos);
    EXPECT_LE(Split(*log, '\n').size(), 25U) << *log;
  }

  static std::unique_ptr<TempDir> dir_;
  static std::unique_ptr<KafkaBroker> broker_;
  static int ports_[5];
  static int topics_;
};
std::unique_ptr<TempDir> SecurityTest::dir_;
std::unique_ptr<KafkaBroker> SecurityTest::broker_;
int SecurityTest::ports_[5];
int SecurityTest::topics_ = 0;

TEST_F(SecurityTest, Tls) { ExpectWorks(0, Tls()); }

TEST_F(SecurityTest, MutualTls) {
  ExpectWorks(1, Tls({{"ssl.certificate.location", At("client.crt")}, {"ssl.key.location", At("client.key")}}));
}

TEST_F(SecurityTest, SaslPlainOverTls) { ExpectWorks(2, Sasl("PLAIN", kPassword)); }

TEST_F(SecurityTest, ScramSha512) { ExpectWorks(2, Sasl("SCRAM-SHA-512", kPassword)); }

TEST_F(SecurityTest, AWrongPassword) {
  ExpectRefused(2, Sasl("PLAIN", "wrong password"), "uthentication failed");
  ExpectRefused(2, Sasl("SCRAM-SHA-512", "wrong password"), "uthentication failed");
}

TEST_F(SecurityTest, WithoutAClientsCertificate) { ExpectRefused(1, Tls(), "certificate"); }

TEST_F(SecurityTest, AnExpiredCertificate) { ExpectRefused(3, Tls(), "certificate"); }

TEST_F(SecurityTest, ACertificateOfAnotherHost) { ExpectRefused(4, Tls(), "certificate"); }

TEST_F(SecurityTest, AnAuthorityThatIsNotOurs) { ExpectRefused(0, {{"security.protocol", "ssl"}}, "certificate"); }

// What the engine's settings are for its topics they are for its dead letters, and for the command that lists them.
TEST_F(SecurityTest, DeadLettersTakeTheSameWay) {
  const Options options = Sasl("SCRAM-SHA-512", kPassword);
  const std::string yaml = At("letters.yaml");
  ASSERT_OK(WriteFileAtomically(yaml, EngineText(2, options)));
  Process engine({FreshetBinary(), "run", "--config", yaml, "--address-file", At("address")}, At("log"));
  ASSERT_TRUE(WaitFor([] { return FileExists(At("address")); }, 60'000));
  KafkaOptions kafka;
  kafka.bootstrap_servers = StrCat("127.0.0.1:", ports_[2]);
  kafka.librdkafka_options = options;
  auto producer = OpenKafkaProducer(kafka);
  ASSERT_OK(producer);
  OutRecord poison;
  poison.topic = "items";
  poison.key = "i1";
  poison.value = "{not json";
  ASSERT_OK((*producer)->Send({poison}, kTimeout));
  std::string out;
  EXPECT_TRUE(WaitFor(
      [&] {
        out.clear();
        return RunCommand({FreshetBinary(), "dead-letters", "list", "--json", "--config", yaml}, &out) == 0 &&
               out.find(R"("records":1)") != std::string::npos;
      },
      60'000))
      << out;
  EXPECT_NE(out.find("VALUE_CONVERTER"), std::string::npos) << out;
}

TEST_F(SecurityTest, ASchemaRegistryIsTrustedByItsCertificate) {
  const std::string body = R"({"schemaType": "JSON", "schema": "{}"})";
  ASSERT_OK(CreateDirectories(At("registry/schemas/ids")));
  ASSERT_OK(WriteFileAtomically(At("registry/schemas/ids/7"),
                                StrCat("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: ", body.size(),
                                       "\r\nContent-Type: application/vnd.schemaregistry.v1+json\r\n\r\n", body)));
  const auto fetch = [&](const std::string& certificate, const std::string& ca_file) {
    RegistryOptions options;
    const int port = FreePort();
    options.url = StrCat("https://127.0.0.1:", port);
    options.ca_file = ca_file;
    options.username = "freshet";
    options.password = kPassword;
    // Serves the files of a directory, each a whole answer.
    const Process server({"bash", "-c",
                          StrCat("cd '", At("registry"), "' && exec openssl s_server -HTTP -quiet -accept 127.0.0.1:",
                                 port, " -cert '", At(certificate), "'")},
                         At("registry.log"));
    const auto registry = OpenSchemaRegistry(options);
    EXPECT_OK(registry);
    Status status;
    EXPECT_TRUE(WaitFor([&] {
      status = (*registry)->Fetch(7).status();
      return status.category() != Category::kTransient;
    }));
    EXPECT_EQ(status.message().find(kPassword), std::string::npos);
    return status.code();
  };
  EXPECT_EQ(fetch("server.pem", At("ca.pem")), Code::kOk);
  EXPECT_EQ(fetch("server.pem", ""), Code::kFailedPrecondition) << "an authority that is not the system's";
  EXPECT_EQ(fetch("expired.pem", At("ca.pem")), Code::kFailedPrecondition);
  EXPECT_EQ(fetch("elsewhere.pem", At("ca.pem")), Code::kFailedPrecondition);
}

}  // namespace
}  // namespace freshet::test
