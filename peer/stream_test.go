package peer

import (
	"bufio"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weircache/weir/peer/internal/wiretest"
)

// nextEvent reads one event of a stream and returns its data.
func nextEvent(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			return data
		}
	}
}

func TestStream(t *testing.T) {
	n := start(t, quick("a"))
	s := httptest.NewServer(n.Handler())
	defer s.Close()
	resp, err := http.Get(s.URL + "/weir/events")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if kind := resp.Header.Get("Content-Type"); kind != "text/event-stream" {
		t.Fatal(kind)
	}
	r := bufio.NewReader(resp.Body)
	for range 2 {
		var c ClusterStats
		if err := json.Unmarshal([]byte(nextEvent(t, r)), &c); err != nil || len(c.Members) != 1 || c.By != "a" {
			t.Fatalf("%v %+v", err, c)
		}
	}
	_ = n.Close() // joins the goroutine that asks the members
	if _, err := io.ReadAll(r); err != nil {
		t.Errorf("the stream did not end well with the node: %v", err)
	}
	wiretest.Until(t, "for the reader to be forgotten", func() bool { return n.eyes.streams.count() == 0 })
}

// TestStreamLimit checks that a thousand idle readers hold no more than the limit. A reader beyond it is rejected, and when
// one leaves, another may join.
func TestStreamLimit(t *testing.T) {
	n := start(t, quick("a"))
	s := httptest.NewServer(n.Handler())
	defer s.Close()
	client := &http.Client{Transport: &http.Transport{}}
	defer client.CloseIdleConnections()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	got := map[int]int{}
	for range 1000 {
		req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/events", nil)
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got[resp.StatusCode]++
		if resp.StatusCode != 200 {
			if resp.Header.Get("Retry-After") == "" {
				t.Error("no Retry-After")
			}
			_, _ = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
	}
	if got[200] != maxReaders || got[503] != 1000-maxReaders || n.eyes.streams.count() != maxReaders {
		t.Errorf("%v, %d readers", got, n.eyes.streams.count())
	}
	cancel()
	wiretest.Until(t, "for the readers to go", func() bool { return n.eyes.streams.count() == 0 })
	resp, err := client.Get(s.URL + "/events")
	if err != nil || resp.StatusCode != 200 {
		t.Fatalf("after they went: %v %v", resp, err)
	}
	_ = resp.Body.Close()
	if m := gather(t, n.metrics.registry); m["weir_stats_streams_refused_total"] != 1000-maxReaders {
		t.Errorf("%v refused", m["weir_stats_streams_refused_total"])
	}
}

// TestSlowReader checks that a client that does not read is dropped once the system's buffers are full.
func TestSlowReader(t *testing.T) {
	n := start(t, quick("a"))
	long := strings.Repeat("x", statsLimit/4*3)
	register(t, n, "long", telling(map[string]string{"text": long}))
	s := httptest.NewUnstartedServer(n.Handler())
	s.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		_ = c.(*net.TCPConn).SetWriteBuffer(4 << 10)
		return ctx
	}
	s.Start()
	defer s.Close()
	conn, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetReadBuffer(4 << 10)
	if _, err := io.WriteString(conn, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	wiretest.Until(t, "for the reader to come", func() bool { return n.eyes.streams.count() == 1 })
	wiretest.Until(t, "for the slow reader to be dropped", func() bool { return n.eyes.streams.count() == 0 })
	if got := n.eyes.streams.dropped.Load(); got != 1 {
		t.Errorf("%d were dropped", got)
	}
}

// TestStreamUnsupported checks that streams are rejected if slow readers cannot be dropped.
func TestStreamUnsupported(t *testing.T) {
	n := start(t, quick("a"))
	if code, body := get(n.Handler(), "/events"); code != 501 || !strings.Contains(body, "stats?cluster=1") {
		t.Errorf("%d %s", code, body)
	}
}

// TestSlowBody checks that a body that arrives drop by drop is given up.
func TestSlowBody(t *testing.T) {
	bubble(t, func(t *testing.T) {
		world := newMemNet()
		n := simulated(t, world, 1, Config{OperatorToken: testToken})
		l, err := world.host("10.0.0.1").Listen(t.Context(), "10.0.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: n.Handler()}
		var serving sync.WaitGroup
		serving.Go(func() { _ = s.Serve(l) })
		defer serving.Wait()
		defer s.Close()
		conn, err := world.host("10.0.0.2").Dial(t.Context(), "10.0.0.1:80")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		began := time.Now()
		if _, err := io.WriteString(conn, "POST /invalidate HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer "+testToken+"\r\nContent-Length: 100\r\n\r\n{"); err != nil {
			t.Fatal(err)
		}
		if got := wiretest.MustEnd(t, conn); !strings.HasPrefix(got, "HTTP/1.1 400") {
			t.Errorf("%q", got)
		}
		if took := time.Since(began); took < operatorBodyTime || took > operatorBodyTime+time.Second {
			t.Errorf("it took %v", took)
		}
	})
}
