package main

import (
	"bytes"
	"os"
	"strings"
	"sync"
)

// meter reads the journal as it grows: the origin's own record of its callers.
type meter struct {
	mu      sync.Mutex // guards the rest
	path    string
	offset  int64
	calls   map[byte]int64            // by kind
	keys    map[byte]map[string]int64 // calls by kind and key
	running map[byte]map[byte]int     // loads in progress by kind and node
	peak    map[byte]int              // maximum number of concurrent loads, by kind
	recent  map[byte]int              // the same since the last call of sample
}

func newMeter(path string) *meter {
	m := &meter{path: path, calls: map[byte]int64{}, keys: map[byte]map[string]int64{}, running: map[byte]map[byte]int{}, peak: map[byte]int{}, recent: map[byte]int{}}
	for _, kind := range []byte("wn") {
		m.keys[kind], m.running[kind] = map[string]int64{}, map[byte]int{}
	}
	return m
}

// read processes what the nodes have written since the last call.
func (m *meter) read() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	f, err := os.Open(m.path)
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	b := make([]byte, (info.Size()-m.offset)/journalRecord*journalRecord)
	if _, err := f.ReadAt(b, m.offset); err != nil {
		return err
	}
	m.offset += int64(len(b))
	for r := range bytes.SplitSeq(b, []byte("\n")) {
		if len(r) != journalRecord-1 {
			continue
		}
		what, kind, node, key := r[0], r[1], r[2], strings.TrimSpace(string(r[4:]))
		if what == 'e' {
			m.running[kind][node]--
			continue
		}
		m.calls[kind]++
		m.keys[kind][key]++
		m.running[kind][node]++
		n := 0
		for _, r := range m.running[kind] {
			n += r
		}
		m.peak[kind], m.recent[kind] = max(m.peak[kind], n), max(m.recent[kind], n)
	}
	return nil
}

// killed forgets the loads that a killed node had in progress, because they will never end.
func (m *meter) killed(node int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.running {
		delete(r, byte('0'+node))
	}
}

// count returns the number of calls of a kind, in all and for one key.
func (m *meter) count(kind byte, key string) (all, one int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.calls[kind], m.keys[kind][key]
}

// most returns the maximum number of concurrent loads so far, and how many keys were loaded.
func (m *meter) most(kind byte) (peak, keys int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.peak[kind], len(m.keys[kind])
}

// sample returns the maximum number of concurrent loads since the previous call.
func (m *meter) sample(kind byte) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.recent[kind]
	m.recent[kind] = 0
	return n
}
