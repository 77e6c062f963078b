#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>

#include "freshet/core/file.h"
#include "freshet/ingest/event_file.h"
#include "freshet_test/test_support.h"
#include "importers.h"

namespace freshet {
namespace {

using Fields = std::vector<std::string>;

std::vector<Event> Events(const std::string& path, TopicRole role) {
  std::vector<Event> events;
  std::int64_t last_ms = 0;
  EXPECT_OK(ForEachEvent(path, role, {}, [&](Event&& event, double) {
    EXPECT_GE(event.record_timestamp_ms, last_ms) << "not in time order";
    last_ms = event.record_timestamp_ms;
    events.push_back(std::move(event));
    return Status::Ok();
  }));
  return events;
}

TEST(CsvRecordsTest, UnderstandsQuotes) {
  CsvRecords records;
  const auto fields = [&](std::string_view line) {
    auto row = records.Add(line);
    EXPECT_OK(row);
    return row.ok() && *row ? **row : Fields{"(incomplete)"};
  };
  EXPECT_EQ(fields("a,b,,c"), (Fields{"a", "b", "", "c"}));
  EXPECT_EQ(fields(""), (Fields{""}));
  EXPECT_EQ(fields(R"("x, y","7"" single","")"), (Fields{"x, y", "7\" single", ""}));
  EXPECT_EQ(fields("1,\"two"), (Fields{"(incomplete)"}));
  EXPECT_TRUE(records.incomplete());
  EXPECT_EQ(fields("lines\",3"), (Fields{"1", "two\nlines", "3"}));
  EXPECT_FALSE(records.Add("a,\"b\"c").ok());
  EXPECT_FALSE(records.Add("a,b\"c\"").ok());
}

TEST(ImportTest, KnowsProductsFromFees) {
  for (const char* product : {"85123A", "22423", "15056BL", "84029g"}) EXPECT_TRUE(IsProductCode(product)) << product;
  for (const char* other : {"POST", "M", "D", "BANK CHARGES", "gift_0001_20", "C2", "", "1234", "12345ABC", "12345-"}) {
    EXPECT_FALSE(IsProductCode(other)) << other;
  }
}

TEST(ImportTest, Latin1BecomesUtf8) { EXPECT_EQ(Latin1ToUtf8("Mis\xe9rables \xff"), "Mis\xc3\xa9rables \xc3\xbf"); }

class OnlineRetailTest : public ::testing::Test {
 protected:
  Result<ImportReport> Import(const std::string& rows) {
    const std::string csv =
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n" + rows;
    if (Status status = WriteFileAtomically(dir_ / "shop.csv", csv); !status.ok()) return status;
    return ImportOnlineRetail(dir_ / "shop.csv", dir_ / "out", nullptr);
  }
  test::TempDir dir_;
};

TEST_F(OnlineRetailTest, KeepsPositivesAndCountsTheRest) {
  const auto report = Import(
      "1,22423,\"CAKESTAND, 3 TIER\",2,2011-03-01 08:30:00,12.75,14620.0,United Kingdom\n"
      "2,22423,x,1,2011-03-01 08:31:00,12.75,,United Kingdom\n"
      "C3,22423,x,-1,2011-03-01 08:32:00,12.75,14620.0,United Kingdom\n"
      "4,POST,POSTAGE,1,2011-03-01 08:33:00,18,14620.0,France\n"
      "5,22423,x,1,yesterday,12.75,14620.0,United Kingdom\n");
  ASSERT_OK(report);
  EXPECT_EQ(report->interactions, 1u);
  EXPECT_EQ(report->items, 1u);
  EXPECT_EQ(report->users, 1u);
  EXPECT_EQ(report->dropped.at("no customer"), 1u);
  EXPECT_EQ(report->dropped.at("quantity is not positive (returns, corrections)"), 1u);
  EXPECT_EQ(report->dropped.at("unreadable number or time"), 1u);
  EXPECT_EQ(report->of.at("stock code is no product").at("POST"), 1u);

  const auto sales = Events(dir_ / "out/interactions.jsonl", TopicRole::kInteractions);
  ASSERT_EQ(sales.size(), 1u);
  const auto& sale = std::get<Interaction>(sales[0].body);
  EXPECT_EQ(sale.user_id, "14620");
  EXPECT_EQ(sale.item_id, "22423");
  EXPECT_EQ(sale.event, "purchase");
  EXPECT_EQ(sale.value, 2.0);
  EXPECT_EQ(sale.timestamp_ms, 1298968200000);  // date -u -d '2011-03-01 08:30' +%s
  const auto items = Events(dir_ / "out/items.jsonl", TopicRole::kItems);
  ASSERT_EQ(items.size(), 1u);
  const auto& item = std::get<ItemUpdate>(items[0].body);
  EXPECT_EQ(item.features, (Features{{"description", "CAKESTAND, 3 TIER"}, {"price", 12.75}}));
  EXPECT_EQ(item.attributes, (Attributes{{"price", 12.75}, {"title", "CAKESTAND, 3 TIER"}}));
  const auto users = Events(dir_ / "out/users.jsonl", TopicRole::kUsers);
  ASSERT_EQ(users.size(), 1u);
  EXPECT_EQ(std::get<UserUpdate>(users[0].body).features, (Features{{"country", "United Kingdom"}}));
}

TEST_F(OnlineRetailTest, AnItemIsToldAgainWhenItChangedOnceADay) {
  const auto report = Import(
      "1,22423,A,1,2011-03-01 08:00:00,1,1,UK\n"
      "2,22423,A,1,2011-03-01 09:00:00,2,1,UK\n"  // changed, but told today
      "3,22423,A,1,2011-03-02 08:00:00,1,1,UK\n"  // as last told
      "4,22423,A,1,2011-03-02 09:00:00,2,1,UK\n"  // changed
      "5,22423,A,1,2011-03-02 10:00:00,3,1,UK\n"  // told today
      "6,22423,,1,2011-03-03 10:00:00,0,1,UK\n"   // no description, no price: nothing new
      "7,22423,B,1,2011-03-04 10:00:00,2,1,UK\n");
  ASSERT_OK(report);
  EXPECT_EQ(report->interactions, 7u);
  const auto items = Events(dir_ / "out/items.jsonl", TopicRole::kItems);
  ASSERT_EQ(items.size(), 3u);
  EXPECT_EQ(std::get<double>(*FindFeature(std::get<ItemUpdate>(items[1].body).features, "price")), 2.0);
  EXPECT_EQ(std::get<std::string>(*FindFeature(std::get<ItemUpdate>(items[2].body).features, "description")), "B");
}

TEST_F(OnlineRetailTest, OtherFilesAreRefusedWithTheirLine) {
  auto report = Import("1,22423,A,1\n");
  ASSERT_FALSE(report.ok());
  EXPECT_EQ(report.status().code(), Code::kInvalidArgument);
  EXPECT_NE(report.status().message().find("shop.csv:2: "), std::string::npos) << report.status().message();
  ASSERT_OK(WriteFileAtomically(dir_ / "other.csv", "a,b\n1,2\n"));
  EXPECT_EQ(ImportOnlineRetail(dir_ / "other.csv", dir_ / "out", nullptr).status().code(), Code::kInvalidArgument);
  EXPECT_EQ(ImportOnlineRetail(dir_ / "missing.csv", dir_ / "out", nullptr).status().code(), Code::kNotFound);
}

TEST_F(OnlineRetailTest, ReadsTheCommittedSample) {
  const std::string source = test::SourceRoot() + "/tests/data/online-retail-2011-03-05.csv.zst";
  const auto report = ImportOnlineRetail(source, dir_ / "out", nullptr);
  ASSERT_OK(report);
  EXPECT_EQ(Events(dir_ / "out/interactions.jsonl", TopicRole::kInteractions).size(), report->interactions);
  EXPECT_EQ(Events(dir_ / "out/items.jsonl", TopicRole::kItems).size(), report->items);
  EXPECT_GT(report->interactions, 70'000u);
}

TEST(MovieLensTest, Reads100k) {
  const test::TempDir dir;
  ASSERT_OK(WriteFileAtomically(dir / "u.genre", "unknown|0\nAction|1\nDrama|2\n\n"));
  ASSERT_OK(
      WriteFileAtomically(dir / "u.item", "1|Mis\xe9rables, Les (1995)|01-Jan-1995||url|0|1|1\n2|unknown||||1|0|0\n"));
  ASSERT_OK(WriteFileAtomically(dir / "u.user", "1|24|M|technician|85711\n"));
  ASSERT_OK(WriteFileAtomically(dir / "u.data", "1\t2\t3\t200\n1\t1\t5\t100\n"));
  const auto report = ImportMovieLens100k(dir.path(), dir / "out", nullptr);
  ASSERT_OK(report);
  const auto items = Events(dir / "out/items.jsonl", TopicRole::kItems);
  ASSERT_EQ(items.size(), 2u);
  const auto& movie = std::get<ItemUpdate>(items[0].body);
  EXPECT_EQ(movie.features, (Features{{"category", "Action"},
                                      {"tags", std::vector<std::string>{"Action", "Drama"}},
                                      {"title", "Mis\xc3\xa9rables, Les (1995)"},
                                      {"year", 1995.0}}));
  EXPECT_EQ(std::get<std::int64_t>(*FindAttribute(movie.attributes, "year")), 1995);
  EXPECT_EQ(FindFeature(std::get<ItemUpdate>(items[1].body).features, "year"), nullptr);
  const auto ratings = Events(dir / "out/interactions.jsonl", TopicRole::kInteractions);
  ASSERT_EQ(ratings.size(), 2u);
  EXPECT_EQ(std::get<Interaction>(ratings[0].body).item_id, "1") << "the earlier one first";
  EXPECT_EQ(std::get<Interaction>(ratings[0].body).event, "rating");
  EXPECT_EQ(std::get<Interaction>(ratings[0].body).value, 5.0);
  EXPECT_EQ(ratings[0].record_timestamp_ms, 100'000);
  EXPECT_LT(items[1].record_timestamp_ms, ratings[0].record_timestamp_ms);
  const auto users = Events(dir / "out/users.jsonl", TopicRole::kUsers);
  ASSERT_EQ(users.size(), 1u);
  EXPECT_EQ(std::get<UserUpdate>(users[0].body).features,
            (Features{{"age", 24.0}, {"gender", "M"}, {"occupation", "technician"}}));
}

TEST(MovieLensTest, Reads1m) {
  const test::TempDir dir;
  ASSERT_OK(WriteFileAtomically(dir / "movies.dat", "1::Toy Story (1995)::Animation|Children's\n"));
  ASSERT_OK(WriteFileAtomically(dir / "users.dat", "1::F::1::10::48067\n"));
  ASSERT_OK(WriteFileAtomically(dir / "train_positives.tsv", "1\t1\t4\t956703932\n"));
  const auto report = ImportMovieLens1m(dir.path(), dir / "out", nullptr);
  ASSERT_OK(report);
  EXPECT_EQ(report->items + report->users + report->interactions, 3u);
  const auto users = Events(dir / "out/users.jsonl", TopicRole::kUsers);
  ASSERT_EQ(users.size(), 1u);
  EXPECT_EQ(std::get<std::string>(*FindFeature(std::get<UserUpdate>(users[0].body).features, "occupation")),
            "K-12 student");
}

TEST(MovieLensTest, BrokenFilesAreRefusedWithTheirLine) {
  const test::TempDir dir;
  ASSERT_OK(WriteFileAtomically(dir / "movies.dat", "1::Toy Story (1995)::Animation\n"));
  ASSERT_OK(WriteFileAtomically(dir / "users.dat", "1::F::1::10::48067\n2::F::1::21::48067\n"));
  const auto report = ImportMovieLens1m(dir.path(), dir / "out", nullptr);
  ASSERT_FALSE(report.ok());
  EXPECT_NE(report.status().message().find("users.dat:2: "), std::string::npos) << report.status().message();
}

TEST(AmazonBeautyTest, KeepsOrderAndAttributes) {
  const test::TempDir dir;
  const auto put = [&](const std::string& file, const std::string& text) { std::ofstream(dir / file) << text; };
  put("sequences_train.txt", "1 7 8 9\n2 8 10\n");
  put("Beauty_item2attributes.json", R"({"8": [3, 4], "12": [5]})");
  const Result<ImportReport> report = ImportAmazonBeauty(dir.path(), dir / "out", nullptr);
  ASSERT_OK(report);
  EXPECT_EQ(report->interactions, 5U);
  EXPECT_EQ(report->items, 5U) << "one without reviews, four without attributes";
  std::vector<std::string> order;
  for (const Event& event : Events(dir / "out/interactions.jsonl", TopicRole::kInteractions)) {
    const auto& one = std::get<Interaction>(event.body);
    if (one.user_id == "1") order.push_back(one.item_id);
  }
  EXPECT_EQ(order, (std::vector<std::string>{"7", "8", "9"}));
  const std::vector<Event> items = Events(dir / "out/items.jsonl", TopicRole::kItems);
  ASSERT_EQ(items.size(), 5U);
  const auto& second = std::get<ItemUpdate>(items[1].body);
  EXPECT_EQ(second.item_id, "8");
  const FeatureValue* tags = FindFeature(second.features, "tags");
  ASSERT_NE(tags, nullptr);
  EXPECT_EQ(std::get<std::vector<std::string>>(*tags), (std::vector<std::string>{"a3", "a4"}));
  put("sequences_train.txt", "1 seven\n");
  const Status bad = ImportAmazonBeauty(dir.path(), dir / "out", nullptr).status();
  EXPECT_EQ(bad.code(), Code::kInvalidArgument);
  EXPECT_NE(bad.message().find("sequences_train.txt:1"), std::string::npos);
}

}  // namespace
}  // namespace freshet
