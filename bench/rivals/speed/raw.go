package main

import (
	"bufio"
	"io"
	"net"
	"runtime"
	"sync"

	"github.com/weircache/weir/bench"
)

// rawRequest is the size of a request over raw TCP, in bytes: about that of weir's own request. Its last byte
// selects the value.
const rawRequest = 40

// rawBuffer is how many bytes of requests or answers a connection collects at most.
const rawBuffer = 64 << 10

// serveRaw answers each request with a value without any framing. Requests that have arrived together are answered
// together.
func serveRaw(l net.Listener) {
	answers := [][]byte{value(sizes[0]), value(sizes[1])}
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer func() { _ = c.Close() }()
			var req [rawRequest]byte
			in, out := bufio.NewReaderSize(c, rawBuffer), bufio.NewWriterSize(c, rawBuffer)
			for {
				if _, err := io.ReadFull(in, req[:]); err != nil {
					return
				}
				if _, err := out.Write(answers[req[rawRequest-1]&1]); err != nil {
					return
				}
				if in.Buffered() < rawRequest && out.Flush() != nil {
					return
				}
			}
		}()
	}
}

// rawRequestFor returns the request of a value of the given size.
func rawRequestFor(size int) []byte {
	req := make([]byte, rawRequest)
	if size == sizes[1] {
		req[rawRequest-1] = 1
	}
	return req
}

// rawCaller sends requests over its own connection.
func rawCaller(addr string, size int) (bench.Caller, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return bench.Caller{}, err
	}
	req, resp := rawRequestFor(size), make([]byte, size)
	return bench.Caller{
		Call: func() error {
			if _, err := c.Write(req); err != nil {
				return err
			}
			_, err := io.ReadFull(c, resp)
			return err
		},
		Close: func() { _ = c.Close() },
	}, nil
}

// pipe is one connection for all callers. It sends the requests that have queued up in one write, and hands out the
// answers in the order of the requests.
type pipe struct {
	conn net.Conn
	wg   sync.WaitGroup
	wake chan struct{} // tells the writer that there are requests

	mu     sync.Mutex // guards queued, and that sent has its order
	queued []byte
	sent   chan *answer
}

// answer is where a caller waits for its value.
type answer struct {
	value []byte
	done  chan error
}

func dialPipe(addr string) (*pipe, error) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	p := &pipe{conn: c, wake: make(chan struct{}, 1), sent: make(chan *answer, mostCallers)}
	p.wg.Go(p.write)
	p.wg.Go(p.read)
	return p, nil
}

// write sends requests. It lets callers that can run queue theirs first.
func (p *pipe) write() {
	var batch []byte
	for range p.wake {
		runtime.Gosched()
		p.mu.Lock()
		batch, p.queued = p.queued, batch[:0]
		p.mu.Unlock()
		if len(batch) == 0 { // the batch before had it
			continue
		}
		if _, err := p.conn.Write(batch); err != nil {
			_ = p.conn.Close() // so that read fails
			return
		}
	}
}

// read hands out answers. A connection that fails goes on failing, so later callers get an error, not a hang.
func (p *pipe) read() {
	in := bufio.NewReaderSize(p.conn, rawBuffer)
	for a := range p.sent {
		_, err := io.ReadFull(in, a.value)
		a.done <- err
	}
}

// close ends the connection. No caller may be waiting.
func (p *pipe) close() error {
	err := p.conn.Close()
	close(p.wake)
	close(p.sent)
	p.wg.Wait()
	return err
}

// get sends a request and waits for its answer.
func (p *pipe) get(req []byte, a *answer) error {
	p.mu.Lock()
	p.queued = append(p.queued, req...)
	p.sent <- a
	p.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
	return <-a.done
}

func (p *pipe) caller(size int) bench.Caller {
	req, a := rawRequestFor(size), &answer{value: make([]byte, size), done: make(chan error, 1)}
	return bench.Caller{Call: func() error { return p.get(req, a) }}
}
