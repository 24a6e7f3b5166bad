package peer

import (
	"net"
	"sync"

	"github.com/weircache/weir/codec"
)

// readBuffer is how much is read at once, in bytes.
const readBuffer = 64 << 10

// A frameReader cuts what a connection sends into frames.
type frameReader struct {
	conn  net.Conn
	limit int // longest frame, in bytes
	buf   []byte
	r, w  int // buf[r:w] is read and not yet used
	bytes int64
}

func newFrameReader(conn net.Conn, limit int) *frameReader {
	return &frameReader{conn: conn, limit: limit, buf: make([]byte, readBuffer)}
}

// buffered returns the next frame that is there whole, nil if there is none. It is valid
// until fill is called.
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

// fill reads more. The buffer grows as bytes come, at most by a factor of two, so that a
// length alone makes nobody allocate; it shrinks back when it is empty.
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
	}
	if f.w == len(f.buf) {
		f.buf = append(f.buf, make([]byte, min(len(f.buf), f.limit+codec.FrameHeader-len(f.buf)))...)
	}
	n, err := f.conn.Read(f.buf[f.w:])
	f.w += n
	f.bytes += int64(n)
	if n > 0 {
		return nil
	}
	return err
}

// buffers hands out byte slices and takes them back, in classes by size.
type buffers struct {
	mu   sync.Mutex // guards free
	free [bufferClasses][][]byte
}

const (
	bufferClasses  = 5
	smallestBuffer = 256 // bytes; each class is four times the one before: up to 64 KiB
	keptBuffers    = 1 << 20
)

// get returns a slice of n bytes.
func (b *buffers) get(n int) []byte {
	size, class := smallestBuffer, 0
	for size < n && class < bufferClasses {
		size, class = size*4, class+1
	}
	if class == bufferClasses {
		return make([]byte, n)
	}
	b.mu.Lock()
	if l := len(b.free[class]); l > 0 {
		p := b.free[class][l-1]
		b.free[class] = b.free[class][:l-1]
		b.mu.Unlock()
		return p[:n]
	}
	b.mu.Unlock()
	return make([]byte, n, size)
}

// put takes a slice from get back. At most about a mebibyte is kept in each class.
func (b *buffers) put(p []byte) {
	size := smallestBuffer
	for class := range bufferClasses {
		if cap(p) == size {
			b.mu.Lock()
			if len(b.free[class]) < keptBuffers/size {
				b.free[class] = append(b.free[class], p)
			}
			b.mu.Unlock()
			return
		}
		size *= 4
	}
}
