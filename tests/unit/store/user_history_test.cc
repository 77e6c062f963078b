#include "user_history.h"

#include "freshet_test/test_support.h"

namespace freshet {
namespace {

UserChange Bought(const std::string& item, std::int64_t at_ms) {
  UserChange change;
  change.body = Interaction{"u", item, "purchase", 1.0, at_ms};
  return change;
}

void ApplyUserChange(const UserChange& change, const HistoryBounds& bounds, std::optional<UserState>* user) {
  HistoryChange done;
  ApplyUserChange(change, bounds, user, &done);
}

TEST(UserHistory, KeepsTheLastByEventTimeWhateverTheOrderOfArrival) {
  std::optional<UserState> user;
  const HistoryBounds bounds{3, 10};
  for (const auto& [item, at] : {std::pair{"c", 30}, {"a", 10}, {"d", 40}, {"b", 20}}) {
    ApplyUserChange(Bought(item, at), bounds, &user);
  }
  ASSERT_TRUE(user);
  ASSERT_EQ(user->history.size(), 3U);
  EXPECT_EQ(user->history[0].item_id, "b");
  EXPECT_EQ(user->history[1].item_id, "c");
  EXPECT_EQ(user->history[2].item_id, "d");
}

TEST(UserHistory, SeenIsBoundedAndHoldsEachItemOnce) {
  std::optional<UserState> user;
  std::int64_t at_ms = 0;
  for (const char* item : {"a", "b", "a", "c", "d"}) ApplyUserChange(Bought(item, ++at_ms), {10, 3}, &user);
  EXPECT_EQ(user->seen, (std::vector<std::string>{"a", "c", "d"}));
}

TEST(UserHistory, ForgettingRemovesAllOfIt) {
  std::optional<UserState> user;
  ApplyUserChange(Bought("a", 1), {}, &user);
  UserChange profile;
  profile.body = UserUpdate{"u", false, {{"country", std::string("FR")}}};
  ApplyUserChange(profile, {}, &user);
  EXPECT_EQ(user->history.size(), 1U);
  EXPECT_EQ(user->features.size(), 1U);
  UserChange forget;
  forget.body = UserUpdate{"u", true, {}};
  ApplyUserChange(forget, {}, &user);
  EXPECT_FALSE(user);
}

}  // namespace
}  // namespace freshet
