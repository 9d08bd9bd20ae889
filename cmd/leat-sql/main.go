// Leat-sql is the process in which leat runs SQL: one query each, by DuckDB, confined to a snapshot of the lake.
//
// leat starts it; see internal/sqlworker for what it may and may not do. `leat-sql -version` prints its versions.
package main

import (
	"os"

	"github.com/leat-io/leat/internal/sqlworker"
)

func main() { os.Exit(sqlworker.Main(os.Args[1:])) }
