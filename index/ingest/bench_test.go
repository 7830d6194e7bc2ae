package ingest

import (
	"strings"
	"testing"
)

// BenchmarkRead reports documents from a megabyte of records of about 600 bytes.
func BenchmarkRead(b *testing.B) {
	line := strings.Split(readScenario(b, "testdata/receipt.txt").part("input"), "\n")[0] + "\n"
	input := strings.Repeat(line, 1<<20/len(line))
	b.SetBytes(int64(len(input)))
	documents := 0
	for b.Loop() {
		err := Read(strings.NewReader(input), Options{Format: FormatReceipt}, func(item Item) error {
			documents++
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(documents)/b.Elapsed().Seconds(), "docs/s")
}
