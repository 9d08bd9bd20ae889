package export_test

import "log/slog"

const childEnv = "LEAT_EXPORT_TEST_CHILD"

var discard = slog.New(slog.DiscardHandler)

func child() int { return 0 }
