package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"net"
	"os"
	"sync"
	"time"

	"github.com/weircache/weir/codec"
)

// readBuffer is how much is read at once, in bytes.
const readBuffer = 64 << 10

const (
	// Once a frame has begun, every FrameTimeout must bring frameProgress bytes or the end of the frame. So a sender that
	// trickles bytes does not hold a buffer for long.
	FrameTimeout  = 10 * time.Second
	frameProgress = 16 << 10
)

// A frameReader splits the bytes of a connection into frames.
type frameReader struct {
	conn  net.Conn
	limit int // longest frame, in bytes
	buf   []byte
	r, w  int // buf[r:w] is read and not yet used
	bytes int64
	due   int // there is a read deadline, which is extended when w has reached this; 0: there is none
}

func newFrameReader(conn net.Conn, limit int) *frameReader {
	return &frameReader{conn: conn, limit: limit, buf: make([]byte, readBuffer)}
}

// buffered returns the next frame if it is in the buffer as a whole, or else nil. The frame is valid until fill is called.
func (f *frameReader) buffered() ([]byte, error) {
	if f.w-f.r < codec.FrameHeader {
		return nil, nil
	}
	n, err := codec.FrameLength(f.buf[f.r:f.w], f.limit)
	if err != nil {
		return nil, err
	}
	end := f.r + codec.FrameHeader + n
	if end > f.w {
		return nil, nil
	}
	frame := f.buf[f.r+codec.FrameHeader : end : end]
	f.r = end
	return frame, nil
}

// fill reads more bytes. The buffer grows as bytes arrive, at most by a factor of two and to what the frame needs, so that
// a claimed length alone does not cause an allocation. The buffer shrinks back when it is empty.
func (f *frameReader) fill() error {
	switch {
	case f.r == f.w:
		f.r, f.w = 0, 0
		if len(f.buf) > readBuffer {
			f.buf = make([]byte, readBuffer)
		}
	case f.r > 0:
		f.w = copy(f.buf, f.buf[f.r:f.w])
		f.r = 0
		f.due = min(f.due, 1) // a different frame than last time
	}
	if f.w == len(f.buf) {
		whole := codec.FrameHeader + int(binary.BigEndian.Uint32(f.buf)) // buffered has checked it
		grown := make([]byte, min(2*len(f.buf), whole))
		copy(grown, f.buf)
		f.buf = grown
	}
	if err := f.hurry(); err != nil {
		return err
	}
	n, err := f.conn.Read(f.buf[f.w:])
	f.w += n
	f.bytes += int64(n)
	if n > 0 {
		return nil
	}
	switch {
	case f.w == 0 || errors.Is(err, net.ErrClosed):
		return err
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fmt.Errorf("%w: %d bytes of it are there, and less than %d came in %v", errStalled, f.w, frameProgress, FrameTimeout)
	}
	return fmt.Errorf("%w: %v", errCut, err)
}

var (
	errStalled = errors.New("a frame is incomplete and no more of it arrives")
	errCut     = errors.New("the connection ended in the middle of a frame")
)

// hurry sets the read deadline of a frame that is partly in the buffer, starting at its front, and clears it between
// frames.
func (f *frameReader) hurry() error {
	if f.w == 0 {
		if f.due == 0 {
			return nil
		}
		f.due = 0
		return f.conn.SetReadDeadline(time.Time{})
	}
	if f.w < f.due {
		return nil
	}
	f.due = f.w + frameProgress
	return f.conn.SetReadDeadline(time.Now().Add(FrameTimeout))
}

// buffers hands out byte slices and takes them back, in classes by size.
type buffers struct {
	mu   sync.Mutex // guards the rest
	free [bufferClasses][][]byte
	kept int // bytes in free
}

const (
	smallestBuffer = 256 // bytes; each class is twice the one before: up to 64 KiB
	bufferClasses  = 9
	keptBuffers    = 8 << 20 // bytes, in all classes together
)

// bufferClass returns the class whose slices hold n bytes, or bufferClasses if there is none.
func bufferClass(n int) int {
	return min(bits.Len(uint(max(n-1, 0)/smallestBuffer)), bufferClasses)
}

// get returns a slice of n bytes.
func (b *buffers) get(n int) []byte {
	class := bufferClass(n)
	if class == bufferClasses {
		return make([]byte, n)
	}
	size := smallestBuffer << class
	b.mu.Lock()
	if l := len(b.free[class]); l > 0 {
		p := b.free[class][l-1]
		b.free[class][l-1] = nil
		b.free[class] = b.free[class][:l-1]
		b.kept -= size
		b.mu.Unlock()
		return p[:n]
	}
	b.mu.Unlock()
	return make([]byte, n, size)
}

// put takes back a slice from get.
func (b *buffers) put(p []byte) {
	class := bufferClass(cap(p))
	if class == bufferClasses || cap(p) != smallestBuffer<<class {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.kept+cap(p) <= keptBuffers {
		b.free[class] = append(b.free[class], p)
		b.kept += cap(p)
	}
}
