// Package lake turns records into the files of the lake: rows → sorted Parquet → Hive partitions by event time.
package lake
