package main

import (
	"runtime"
	"runtime/metrics"
	"testing"
)

func TestSpareHeap(t *testing.T) {
	defer runtime.KeepAlive(spareHeap())
	runtime.GC()
	goal := []metrics.Sample{{Name: "/gc/heap/goal:bytes"}}
	metrics.Read(goal)
	if got := goal[0].Value.Uint64(); got < 2*spareSize {
		t.Errorf("the collector runs at %d bytes, with %d to spare", got, spareSize)
	}
}
