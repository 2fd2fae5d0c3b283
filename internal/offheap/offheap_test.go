package offheap

import (
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"
)

func TestBlocksAreApart(t *testing.T) {
	m := New()
	var blocks [][]byte
	total := 0
	for i, size := range []int{1, 4096, 100_000, regionBytes, regionBytes - 7, regionBytes + 1, 12} {
		b, err := m.Alloc(size)
		if err != nil || len(b) != size || cap(b) != size {
			t.Fatalf("%d bytes: got %d of %d, %v", size, len(b), cap(b), err)
		}
		if i := slices.IndexFunc(b, func(v byte) bool { return v != 0 }); i >= 0 {
			t.Fatalf("byte %d of %d is not zero", i, size)
		}
		for j := range b {
			b[j] = byte(i + 1)
		}
		blocks, total = append(blocks, b), total+size
	}
	for i, b := range blocks {
		if slices.ContainsFunc(b, func(v byte) bool { return v != byte(i+1) }) {
			t.Errorf("block %d was overwritten", i)
		}
	}
	if got := m.Bytes(); got < int64(total) || got > int64(total+3*regionBytes) {
		t.Errorf("%d bytes were taken for %d", got, total)
	}
	if b, err := m.Alloc(0); len(b) != 0 || err != nil {
		t.Errorf("nothing was asked for: %d bytes, %v", len(b), err)
	}
}

func TestBlocksStayOutOfTheHeap(t *testing.T) {
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		t.Skip("this system has blocks of the heap")
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	m := New()
	b, err := m.Alloc(256 << 20)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] = 1
	runtime.ReadMemStats(&after)
	if grown := int64(after.HeapSys) - int64(before.HeapSys); grown > 128<<20 {
		t.Errorf("the heap grew by %d bytes", grown)
	}
	runtime.KeepAlive(m)
}

// TestMemoryGoesBack waits until the collector finds that nothing refers to the
// memory, and only then.
func TestMemoryGoesBack(t *testing.T) {
	var mu sync.Mutex
	taken, back := 0, 0
	all := make(chan struct{})
	count := func(n int) {
		mu.Lock()
		defer mu.Unlock()
		if back += n; back == 3 {
			close(all)
		}
	}
	m := newMemory(source{
		get: func(n int) ([]byte, error) { taken++; return make([]byte, n), nil },
		put: func([]byte) error { count(1); return nil },
	})
	for range 3 {
		if _, err := m.Alloc(regionBytes - 1); err != nil {
			t.Fatal(err)
		}
	}
	runtime.GC()
	mu.Lock()
	if taken != 3 || back != 0 {
		t.Fatalf("%d regions taken, %d given back though the memory is in use", taken, back)
	}
	mu.Unlock()
	runtime.KeepAlive(m) // for the last time
	deadline := time.After(time.Minute)
	for {
		runtime.GC()
		select {
		case <-all:
			return
		case <-deadline:
			t.Fatalf("%d of 3 regions were given back", back)
		case <-time.After(time.Millisecond):
		}
	}
}

func TestNoMemoryIsAnError(t *testing.T) {
	none := errors.New("none")
	m := newMemory(source{get: func(int) ([]byte, error) { return nil, none }, put: func([]byte) error { return nil }})
	if b, err := m.Alloc(1); !errors.Is(err, none) || b != nil || m.Bytes() != 0 {
		t.Fatalf("%v, %v, %d", b, err, m.Bytes())
	}
}
