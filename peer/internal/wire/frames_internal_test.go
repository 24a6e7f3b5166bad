package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/wiretest"
	"github.com/weircache/weir/ring"
)

// bytesConn is a connection that delivers the given bytes, in pieces, and then ends.
type bytesConn struct {
	net.Conn // nil: nothing else is called
	rest     []byte
	piece    int // the most that one Read returns
	reads    int // calls of Read so far
}

func (c *bytesConn) Read(b []byte) (int, error) {
	c.reads++
	if len(c.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b[:min(len(b), c.piece)], c.rest)
	c.rest = c.rest[n:]
	return n, nil
}

func (c *bytesConn) SetReadDeadline(time.Time) error { return nil }

// eachFrame passes the frames of a connection to handle until one of them fails.
func eachFrame(f *frameReader, handle func(frame []byte) error) error {
	for {
		frame, err := f.buffered()
		switch {
		case err != nil:
		case frame == nil:
			err = f.fill()
		default:
			err = handle(frame)
		}
		if err != nil {
			return err
		}
	}
}

// newsOf returns the news of one invalidation of the keys.
func newsOf(keys ...[]byte) *codec.News {
	return &codec.News{Invalidations: []codec.Invalidation{{Mark: codec.Mark{Incarnation: 1, Seq: 1}, Scope: codec.ScopeKeys, Names: keys}}}
}

// addFrames adds frames that every decoder must withstand.
func addFrames(f *testing.F, limit uint32) {
	add := func(b []byte) {
		f.Add(b, uint16(1<<15))
		f.Add(b, uint16(7))
	}
	hi := Hello{Protocol: ProtocolVersion, Name: "n", Cluster: "c", Namespaces: []Namespace{{"product", 6}}}
	whole := [][]byte{
		codec.AppendRequest(nil, &codec.Request{Kind: codec.KindGet, ID: 1, Namespace: []byte("n"), Schema: 1, Key: []byte("key")}),
		codec.AppendRequest(nil, &codec.Request{Kind: codec.KindInvalidate, ID: 2, Namespace: []byte("n"), News: newsOf([]byte("a"), []byte("b"))}),
		codec.AppendResponse(nil, &codec.Response{ID: 1, Status: codec.StatusValue, Value: []byte("value")}),
		codec.AppendResponse(nil, &codec.Response{ID: 2, Status: codec.StatusFailed, Owner: []byte("n"), Text: []byte("text")}),
		hi.Append(nil),
		wiretest.Frame(codec.KindPing, 1, ""), wiretest.Frame(codec.KindPong, 1, ""), wiretest.Frame(codec.KindCancel, 1, ""), wiretest.Frame(codec.KindGoodbye, 0, "why"),
	}
	for _, b := range whole {
		for cut := range b {
			f.Add(b[:cut], uint16(1<<15))
			// Cut short, but with a correct length.
			if cut >= codec.FrameHeader+codec.FrameMin {
				f.Add(codec.EndFrame(bytes.Clone(b[:cut]), 0), uint16(1<<15))
			}
		}
		add(b)
		add(codec.EndFrame(append(bytes.Clone(b), 0), 0)) // one byte too many inside
		add(append(bytes.Clone(b), 0))                    // and one behind
		add(append(bytes.Clone(b), b...))                 // the same id a second time
		for _, id := range []uint64{0, 3, 4, 5, 8, 9, 1 << 63, 1<<64 - 1} {
			other := bytes.Clone(b)
			binary.BigEndian.PutUint64(other[codec.FrameHeader+1:], id)
			add(other)
		}
		for _, n := range []uint32{0, codec.FrameMin - 1, codec.FrameMin, limit, limit + 1, helloLimit, helloLimit + 1, 1 << 31, 1<<32 - 1} {
			other := bytes.Clone(b)
			binary.BigEndian.PutUint32(other, n)
			add(other)
		}
	}
	for kind := range 256 {
		f.Add(wiretest.Frame(codec.Kind(kind), 1, "body"), uint16(1<<15))
	}
	most := make([][]byte, codec.MaxKeysPerFrame)
	for i := range most {
		most[i] = []byte("k")
	}
	add(codec.AppendRequest(nil, &codec.Request{Kind: codec.KindInvalidate, ID: 1, Namespace: []byte("n"), News: newsOf(most...)}))
	add([]byte("GET / HTTP/1.1\r\nHost: n\r\n\r\n"))
	add([]byte("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"))
	add(bytes.Repeat([]byte{0x80}, 1<<20))
	add(wiretest.Frame(codec.KindAnswer, 1, string(bytes.Repeat([]byte{0x80}, 1<<19))))
	add(bytes.Repeat(wiretest.Frame(codec.KindPong, 1, string(make([]byte, readBuffer))), 8)) // the buffer grows and shrinks
}

// FuzzFrames feeds a stream to the three readers of a data connection: the one that waits for a hello, the one that serves,
// and the one of the calling side, with requests 1 to 4 in flight and 5 to 8 withdrawn.
func FuzzFrames(f *testing.F) {
	const limit = 1 << 20
	addFrames(f, limit)
	d := New(Config{Name: "a", ValueLimit: limit, Budget: 64 << 20, Logger: slog.New(slog.DiscardHandler)})
	p := newPeer(d, ring.Member{Name: "b"})
	f.Fuzz(func(t *testing.T, b []byte, piece uint16) {
		conn := func() net.Conn { return &bytesConn{rest: b, piece: max(int(piece), 1+len(b)/1000)} }
		wantEnd := func(err error) {
			if !isMalformed(err) && !errors.Is(err, codec.ErrUnsupported) && err != io.EOF && !errors.Is(err, errCut) && !bytes.Contains([]byte(err.Error()), []byte("the peer closed")) {
				t.Errorf("ended with %v", err)
			}
		}
		wiretest.AtMost(t, len(b), func() { _, _ = ReadHello(conn()) })

		var req codec.Request
		r := newFrameReader(nil, limit)
		// An invalidation takes at least 11 bytes on the wire, and 48 in memory. The slices of 4096 names, the most that a
		// frame can have, take 96 KiB, and as much again while they grow, once for each connection.
		wiretest.AtMost(t, 2*len(b)+2*24*codec.MaxKeysPerFrame/4, func() {
			*r = frameReader{conn: conn(), limit: limit, buf: r.buf[:readBuffer:readBuffer]}
			req = codec.Request{}
			wantEnd(eachFrame(r, func(frame []byte) error {
				kind, id, body, err := codec.FrameKind(frame)
				if err == nil {
					err = codec.DecodeRequest(&req, kind, id, body)
				}
				return err
			}))
		})

		wiretest.AtMost(t, len(b), func() {
			*r = frameReader{conn: conn(), limit: limit, buf: r.buf[:readBuffer:readBuffer]}
			l := newLink(p, r.conn)
			l.lastID = 8
			waiting := make(map[uint64]*waiter)
			for id := range uint64(4) {
				w := &waiter{done: make(chan error, 1), resp: new(codec.Response)}
				waiting[id+1], l.pending[id+1] = w, w
			}
			wantEnd(eachFrame(r, l.handle))
			for id, w := range waiting {
				select {
				case err := <-w.done:
					if l.pending[id] != nil {
						t.Errorf("request %d is answered and still under way", id)
					}
					if err == nil {
						w.resp.Release()
					}
				default:
					if l.pending[id] != w {
						t.Errorf("request %d is lost", id)
					}
				}
			}
		})
		if n := d.flying.Load(); n != 0 {
			t.Errorf("%d bytes are still counted as under way", n)
		}
	})
}

func TestBuffers(t *testing.T) {
	var b buffers
	for _, n := range []int{0, 1, 255, 256, 257, 512, 513, 4<<10 + 40, 64 << 10, 64<<10 + 1} {
		p := b.get(n)
		if len(p) != n || n > 256 && n <= 64<<10 && cap(p) >= 2*n {
			t.Errorf("get %d: %d bytes of %d", n, len(p), cap(p))
		}
		b.put(p)
		if q := b.get(n); n > 0 && n <= 64<<10 && &q[0] != &p[0] {
			t.Errorf("get %d: the buffer was not reused", n)
		}
	}
	for range 2 * keptBuffers / (64 << 10) {
		b.put(make([]byte, 64<<10))
	}
	if b.kept > keptBuffers || b.kept <= keptBuffers-64<<10 {
		t.Errorf("%d bytes are kept", b.kept)
	}
}
