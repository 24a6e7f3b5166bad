package wire_test

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/peer/internal/wiretest"
)

// TestTricklingSender checks that a frame that has begun must bring 16 KiB in every FrameTimeout, or its end, and that the
// time between frames does not count.
func TestTricklingSender(t *testing.T) {
	const progress, second = 16 << 10, time.Second
	frame := wiretest.Frame(codec.KindPing, 1, strings.Repeat("b", 3*progress))
	type step struct {
		after time.Duration // the last one
		bytes int           // 0: the rest of the frame
	}
	slow := []step{{}}
	for range 30 {
		slow = append(slow, step{second, 100})
	}
	for _, c := range []struct {
		name  string
		steps []step
		end   time.Duration // when the connection is closed; 0: it stays open
	}{
		{"nothing more", []step{{0, 1}}, wire.FrameTimeout},
		{"a little every second", slow[1:], wire.FrameTimeout + second},
		{"just less than enough", []step{{0, 1}, {9 * second, progress - 1}}, wire.FrameTimeout},
		{"just enough, twice", []step{{0, 1}, {9 * second, progress}, {9 * second, progress}, {9 * second, 0}}, 0},
		{"just enough once", []step{{0, 1}, {9 * second, progress}}, 9*second + wire.FrameTimeout},
		{"the end of the frame in time", []step{{0, 1}, {9 * second, 0}}, 0},
		{"pauses between frames", []step{{0, 0}, {time.Hour, 0}, {time.Hour, 0}}, 0},
		{"behind another frame", []step{{0, len(frame) + 1}, {9 * second, 100}}, wire.FrameTimeout},
	} {
		bubble(t, func(t *testing.T) {
			w := newPair(t, false, nil)
			conn := dialRaw(t, w.b)
			_ = conn.SetDeadline(time.Time{})
			began, ended := time.Now(), make(chan time.Duration, 1)
			go func() { // reads the pongs
				b := make([]byte, 100)
				for {
					if _, err := conn.Read(b); err != nil {
						ended <- time.Since(began)
						return
					}
				}
			}()
			rest := append([]byte(nil), frame...)
			for _, s := range c.steps {
				wiretest.Pause(t.Context(), s.after)
				n := s.bytes
				if n == 0 {
					n = len(rest)
				}
				for n > len(rest) {
					rest = append(rest, frame...)
				}
				if _, err := conn.Write(rest[:n]); err != nil {
					break
				}
				if rest = rest[n:]; len(rest) == 0 {
					rest = append(rest, frame...)
				}
			}
			wiretest.Pause(t.Context(), time.Minute)
			synctest.Wait()
			switch {
			case c.end == 0 && len(ended) > 0:
				t.Errorf("%s: closed after %v", c.name, <-ended)
			case c.end != 0 && len(ended) == 0:
				t.Errorf("%s: still open", c.name)
			case c.end != 0:
				if at := <-ended; at != c.end {
					t.Errorf("%s: closed after %v, want %v", c.name, at, c.end)
				}
				if !strings.Contains(w.logB.String(), "a frame is incomplete and no more of it arrives") {
					t.Errorf("%s: the log is %s", c.name, w.logB.String())
				}
			}
		})
	}
}
