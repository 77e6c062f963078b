// Who gets in at the door of gRPC, and what else stands there: health, reflection, bounds, metadata.
#include <google/protobuf/descriptor.pb.h>
#include <grpcpp/security/credentials.h>
#include <sys/stat.h>

#include <set>

#include "certificates.h"
#include "freshet/core/file.h"
#include "grpc_fixture.h"

namespace freshet {
namespace {

using test::CallBytes;
using test::DetailsOf;
using test::RawReply;
using test::WaitFor;

constexpr char kHealthCheck[] = "/grpc.health.v1.Health/Check";
constexpr char kReflection[] = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";
constexpr char kToken[] = "correct-horse-battery-staple";

// A field of a message on the wire whose type is 2: a text or a message in it.
std::string Field(int number, const std::string& text) {
  return StrCat(std::string(1, static_cast<char>(number << 3 | 2)), std::string(1, static_cast<char>(text.size())),
                text);
}

// All such fields of this number.
std::vector<std::string> FieldsOf(const std::string& bytes, int number) {
  google::protobuf::UnknownFieldSet fields;
  EXPECT_TRUE(fields.ParseFromString(bytes));
  std::vector<std::string> found;
  for (int i = 0; i < fields.field_count(); ++i) {
    const auto& field = fields.field(i);
    if (field.number() == number && field.type() == google::protobuf::UnknownField::TYPE_LENGTH_DELIMITED) {
      found.push_back(field.length_delimited());
    }
  }
  return found;
}

class GrpcDoorTest : public test::GrpcTest {
 protected:
  void SetUp() override { replica_.Put("a", {1, 0}); }

  // "SERVING", "NOT_SERVING", or the code of an error.
  std::string Health(const std::string& service) {
    const RawReply reply = CallBytes(channel_, kHealthCheck, service.empty() ? "" : Field(1, service));
    if (!reply.status.ok()) return StrCat("code ", static_cast<int>(reply.status.error_code()));
    if (reply.bytes == std::string("\x08\x01")) return "SERVING";
    return reply.bytes == std::string("\x08\x02") ? "NOT_SERVING" : StrCat(reply.bytes.size(), " other bytes");
  }
  // The first answer to one question.
  RawReply Reflect(const std::string& question) {
    grpc::ClientContext context;
    Prepare(&context);
    grpc::CompletionQueue queue;
    grpc::GenericStub stub(channel_);
    const auto call = stub.PrepareCall(&context, kReflection, &queue);
    const auto next = [&queue] {
      void* tag = nullptr;
      bool ok = false;
      EXPECT_TRUE(queue.Next(&tag, &ok));
      return ok;
    };
    RawReply reply;
    call->StartCall(nullptr);
    if (next()) {
      call->WriteLast(test::ToBuffer(question), {}, nullptr);
      (void)next();
      grpc::ByteBuffer answer;
      call->Read(&answer, nullptr);
      if (next()) reply.bytes = test::ToBytes(answer);
    }
    call->Finish(&reply.status, nullptr);
    (void)next();
    return reply;
  }
  std::string TokenFile() {
    const std::string path = dir_ / "tokens";
    EXPECT_OK(WriteFileAtomically(path, StrCat(kToken, "\n")));
    EXPECT_EQ(::chmod(path.c_str(), 0600), 0);
    return path;
  }

  test::TempDir dir_;
};

TEST_F(GrpcDoorTest, HealthIsReadiness) {
  SetNotReady({"has not caught up with the log yet"});
  StartServer();
  EXPECT_EQ(Health(""), "NOT_SERVING");
  EXPECT_EQ(Health("freshet.v1.Recall"), "NOT_SERVING");
  EXPECT_EQ(Http("GET", "/readyz").status, 503);
  SetNotReady({});
  EXPECT_TRUE(WaitFor([&] { return Health("") == "SERVING"; }));
  EXPECT_TRUE(WaitFor([&] { return Health("freshet.v1.Recall") == "SERVING"; }));
  EXPECT_EQ(Http("GET", "/readyz").status, 200);
  SetNotReady({"answers are 11 s behind the log, the bound is 10"});
  EXPECT_TRUE(WaitFor([&] { return Health("") == "NOT_SERVING"; }));
  EXPECT_EQ(Health("another"), "code 5") << "NOT_FOUND";
  // Who is not ready answers nevertheless, as over HTTP.
  EXPECT_TRUE(Recall(test::RequestOfItem("a")).ok());
}

TEST_F(GrpcDoorTest, ReflectionDescribesTheService) {
  StartServer();
  const RawReply listed = Reflect(Field(7, "*"));
  ASSERT_TRUE(listed.status.ok()) << listed.status.error_message();
  std::set<std::string> services;
  for (const std::string& list : FieldsOf(listed.bytes, 6)) {
    for (const std::string& service : FieldsOf(list, 1))
      services.merge([&] {
        const auto names = FieldsOf(service, 1);
        return std::set<std::string>(names.begin(), names.end());
      }());
  }
  EXPECT_TRUE(services.contains("freshet.v1.Recall")) << services.size();
  EXPECT_TRUE(services.contains("grpc.health.v1.Health"));

  const RawReply described = Reflect(Field(4, "freshet.v1.Recall"));
  ASSERT_TRUE(described.status.ok()) << described.status.error_message();
  std::set<std::string> methods;
  for (const std::string& response : FieldsOf(described.bytes, 4)) {
    for (const std::string& bytes : FieldsOf(response, 1)) {
      google::protobuf::FileDescriptorProto file;
      ASSERT_TRUE(file.ParseFromString(bytes));
      EXPECT_EQ(file.package(), "freshet.v1");
      for (const auto& method : file.service(0).method()) methods.insert(method.name());
    }
  }
  EXPECT_EQ(methods, (std::set<std::string>{"GetItem", "GetUser", "Recall", "RecallBatch", "Score", "Status"}));
}

TEST_F(GrpcDoorTest, ATokenIsWantedByAllButHealth) {
  options_.token_file = TokenFile();
  StartServer();
  v1::RecallRequest request = test::RequestOfItem("a");
  const std::string bytes = request.SerializeAsString();
  for (const char* method : {"Recall", "RecallBatch", "Score", "GetItem", "GetUser", "Status"}) {
    const std::string path = StrCat("/freshet.v1.Recall/", method);
    for (const char* token : {"", "correct-horse-battery-stapler"}) {
      const RawReply refused = CallBytes(channel_, path, bytes, token);
      EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::UNAUTHENTICATED) << method;
      EXPECT_EQ(DetailsOf(refused.status).type, "urn:freshet:problem:unauthorized");
    }
  }
  EXPECT_EQ(Requests("GetUser", "UNAUTHENTICATED"), 2);
  EXPECT_TRUE(CallBytes(channel_, test::kRecallMethod, bytes, kToken).status.ok());
  EXPECT_TRUE(CallBytes(channel_, "/freshet.v1.Recall/Status", "", kToken).status.ok());
  EXPECT_TRUE(WaitFor([&] { return Health("") == "SERVING"; }));
  EXPECT_EQ(Reflect(Field(7, "*")).status.error_code(), grpc::StatusCode::UNIMPLEMENTED)
      << "it could not ask for a token";
}

TEST_F(GrpcDoorTest, OtherAddressesThanLoopbackWantGuards) {
  options_.grpc_listen = "0.0.0.0:0";
  const Status refused = options_.Validate();
  EXPECT_EQ(refused.code(), Code::kConfig);
  EXPECT_NE(refused.message().find("grpc_listen: `0.0.0.0:0` is not a loopback address"), std::string::npos)
      << refused.message();
  options_.token_file = "tokens";
  EXPECT_OK(options_.Validate());
  options_.token_file.clear();
  options_.tls = {"server.crt", "server.key", ""};
  EXPECT_EQ(options_.Validate().code(), Code::kConfig) << "TLS tells who we are, not who asks";
  options_.tls.client_ca = "ca.crt";
  EXPECT_OK(options_.Validate());
  options_ = {};
  for (const char* listen : {"nowhere", "example.org:1", "127.0.0.1:65536", ":1"}) {
    options_.grpc_listen = listen;
    EXPECT_EQ(options_.Validate().code(), Code::kConfig) << listen;
  }
  for (const char* listen : {"localhost:0", "[::1]:0", "127.0.0.2:0"}) {
    options_.grpc_listen = listen;
    EXPECT_OK(options_.Validate());
  }
}

TEST_F(GrpcDoorTest, AnAddressInUseIsAnError) {
  StartServer();
  HttpOptions another = options_;
  another.grpc_listen = server_->grpc_address();
  const auto second = MakeHttpServer(another, &service_, &metrics_, {}, {});
  const Status started = second->Start();
  EXPECT_EQ(started.code(), Code::kUnavailable) << started.ToString();
  EXPECT_NE(started.message().find(another.grpc_listen), std::string::npos) << started.message();
  EXPECT_TRUE(Recall(test::RequestOfItem("a")).ok()) << "the first is as it was";
}

TEST_F(GrpcDoorTest, WithoutTheKeyThereIsNone) {
  options_.grpc_listen.clear();
  server_ = MakeHttpServer(options_, &service_, &metrics_, {}, {});
  ASSERT_OK(server_->Start());
  EXPECT_EQ(server_->grpc_address(), "");
}

TEST_F(GrpcDoorTest, WhatIsTooLargeIsRefusedUnread) {
  StartServer();
  v1::RecallRequest request;
  for (int i = 0; i < 300'000; ++i) request.add_vector(1);
  ASSERT_GT(request.ByteSizeLong(), std::size_t{1} << 20);
  EXPECT_EQ(Recall(request).error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  request.mutable_vector()->Truncate(250'000);
  ASSERT_LT(request.ByteSizeLong(), std::size_t{1} << 20);
  EXPECT_EQ(Recall(request).error_code(), grpc::StatusCode::INVALID_ARGUMENT) << "read, and of another dimension";
  grpc::ClientContext context;
  Prepare(&context);
  context.AddMetadata("x-request-id", std::string(64 * 1024, 'x'));
  v1::RecallResponse response;
  EXPECT_FALSE(stub_->Recall(&context, test::RequestOfItem("a"), &response).ok()) << "a header is too large too";
  Reconnect();  // the connection may have been closed for it
  EXPECT_TRUE(Recall(test::RequestOfItem("a")).ok());
}

// More than a client takes as trailers, if it were not cut.
TEST_F(GrpcDoorTest, LongComplaintsAreCut) {
  replica_.users["ann"].history = {{"a", "view", 1, 1}};
  std::string complaint(1023, 'x');
  for (int i = 0; i < 10'000; ++i) complaint += "\xc3\xa4";
  encoder_.result = Internal(complaint);
  StartServer();
  const grpc::Status status = Recall(test::RequestOfUser("ann"));
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INTERNAL);
  EXPECT_LE(status.error_message().size(), 1024U);
  EXPECT_NE(status.error_message().find("the user tower: xxx"), std::string::npos);
  EXPECT_EQ(DetailsOf(status).reason, "INTERNAL");
}

TEST_F(GrpcDoorTest, RequestsAreNamedAndLogged) {
  options_.access_log = true;
  StartServer();
  const auto ask = [this](const std::string& id, const std::string& traceparent) {
    grpc::ClientContext context;
    Prepare(&context);
    if (!id.empty()) context.AddMetadata("x-request-id", id);
    if (!traceparent.empty()) context.AddMetadata("traceparent", traceparent);
    v1::RecallResponse response;
    EXPECT_TRUE(stub_->Recall(&context, test::RequestOfItem("a"), &response).ok());
    const auto& metadata = context.GetServerInitialMetadata();
    const auto it = metadata.find("x-request-id");
    return it == metadata.end() ? std::string() : std::string(it->second.data(), it->second.size());
  };
  testing::internal::CaptureStderr();
  EXPECT_EQ(ask("r-17", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"), "r-17");
  const std::string made = ask("", "");
  EXPECT_EQ(made.size(), 16U);
  EXPECT_NE(ask(std::string(129, 'x'), ""), std::string(129, 'x')) << "not an id";
  EXPECT_TRUE(Calls(0));
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_NE(log.find("request_id=r-17 trace_id=4bf92f3577b34da6a3ce929d0e0e4736 route=/freshet.v1.Recall/Recall"),
            std::string::npos)
      << log;
  EXPECT_NE(log.find("protocol=grpc status=200"), std::string::npos) << log;
  EXPECT_NE(log.find(StrCat("request_id=", made)), std::string::npos) << log;
}

TEST_F(GrpcDoorTest, TlsTellsWhoWeAreAndAsksWhoTheyAre) {
  test::Certificates files;
  files.Authority("ca");
  files.Authority("other");
  files.Certify("server", "IP:127.0.0.1", "ca");
  files.Certify("client", "DNS:client", "ca");
  files.Certify("stranger", "DNS:stranger", "other");
  const auto read = [&](const std::string& name) {
    const Result<std::string> text = ReadFile(files.At(name), std::size_t{1} << 20);
    EXPECT_OK(text);
    return text.ok() ? *text : "";
  };
  const auto call = [&](const std::string& authority, const std::string& name) {
    grpc::SslCredentialsOptions tls;
    tls.pem_root_certs = read(authority);
    if (!name.empty()) {
      tls.pem_cert_chain = read(name + ".crt");
      tls.pem_private_key = read(name + ".key");
    }
    channel_ = test::Connect(server_->grpc_address(), grpc::SslCredentials(tls));
    return CallBytes(channel_, test::kRecallMethod, test::RequestOfItem("a").SerializeAsString()).status.error_code();
  };
  options_.tls = {files.At("server.crt"), files.At("server.key"), ""};
  StartServer();
  EXPECT_EQ(call("ca.crt", ""), grpc::StatusCode::OK);
  EXPECT_EQ(call("other.crt", ""), grpc::StatusCode::UNAVAILABLE) << "another server than this one is meant";
  Reconnect();
  EXPECT_EQ(Recall(test::RequestOfItem("a")).error_code(), grpc::StatusCode::UNAVAILABLE) << "no TLS";

  server_->Stop();
  options_.tls.client_ca = files.At("ca.crt");
  StartServer();
  EXPECT_EQ(call("ca.crt", "client"), grpc::StatusCode::OK);
  EXPECT_EQ(call("ca.crt", ""), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(call("ca.crt", "stranger"), grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(Health(""), "code 14") << "health asks for a certificate too";

  options_.tls.key = files.At("client.key");
  const Status wrong = MakeHttpServer(options_, &service_, &metrics_, {}, {})->Start();
  EXPECT_EQ(wrong.code(), Code::kConfig);
  EXPECT_NE(wrong.message().find("client.key"), std::string::npos) << wrong.message();
}

}  // namespace
}  // namespace freshet
