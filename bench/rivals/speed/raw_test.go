package main

import (
	"net"
	"sync"
	"testing"
)

// TestPipe checks that the callers of a pipe get their own answers, and an error once the server is gone.
func TestPipe(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { serveRaw(l); close(ended) }()
	p, err := dialPipe(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			size := sizes[i%2]
			a := &answer{value: make([]byte, size), done: make(chan error, 1)}
			for range 200 {
				clear(a.value)
				if err := p.get(rawRequestFor(size), a); err != nil || string(a.value) != string(value(size)) {
					t.Errorf("a caller of %d bytes got others, %v", size, err)
				}
			}
		})
	}
	wg.Wait()
	if err := p.conn.Close(); err != nil {
		t.Fatal(err)
	}
	c := p.caller(sizes[0])
	for range 3 {
		if c.Call() == nil {
			t.Error("a call on a closed connection: no error")
		}
	}
	_ = p.close()
	_ = l.Close()
	<-ended
}
