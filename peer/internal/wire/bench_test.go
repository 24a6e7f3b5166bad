package wire_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weircache/weir/codec"
	"github.com/weircache/weir/peer/internal/hearing"
	"github.com/weircache/weir/peer/internal/wire"
	"github.com/weircache/weir/ring"
)

// benchRole makes the test binary the server process of a benchmark. It prints the two addresses that it serves, and ends
// when its standard input does.
const benchRole = "WEIR_PEER_BENCH_SERVER"

func benchData(name string, connections int) *wire.Plane {
	return wire.New(wire.Config{
		Name: name, Cluster: "bench", Connections: connections, Sessions: 32, ValueLimit: 1 << 20, Budget: 1 << 30,
		Dial: dialTCP, Logger: slog.New(slog.DiscardHandler), Seed: 1, Hearing: hearing.New(time.Now()),
	})
}

// sized answers at once. A key of 4 bytes or less gets 256 bytes, a longer one gets 4 KiB.
type sized struct{ small, large []byte }

func (s *sized) TryServe(req *codec.Request, resp *codec.Response) bool {
	resp.Status, resp.Value = codec.StatusValue, s.small
	if len(req.Key) > 4 {
		resp.Value = s.large
	}
	return true
}
func (s *sized) Serve(context.Context, *codec.Request, *codec.Response) {}
func (s *sized) Stats() any                                             { return nil }

func benchServer() int {
	echo, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	own, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	d := benchData("server", 1)
	if _, err := d.Register("bench", 1, &sized{make([]byte, 256), make([]byte, 4<<10)}); err != nil {
		panic(err)
	}
	go func() {
		for {
			c, err := echo.Accept()
			if err != nil {
				return
			}
			go func() {
				b := make([]byte, 8<<10)
				for {
					n, err := c.Read(b)
					if err != nil {
						return
					}
					if _, err := c.Write(b[:n]); err != nil {
						return
					}
				}
			}()
		}
	}()
	go func() {
		for {
			c, err := own.Accept()
			if err != nil {
				return
			}
			if _, err := io.ReadFull(c, make([]byte, len(wire.Magic))); err == nil {
				d.Accept(c, func() {})
			}
		}
	}()
	fmt.Println(echo.Addr(), own.Addr())
	_, _ = io.Copy(io.Discard, os.Stdin)
	return 0
}

// otherProcess starts the server and returns its addresses.
func otherProcess(b *testing.B) (echo, own string) {
	b.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), benchRole+"=1")
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close()
		_ = cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		b.Fatal(err)
	}
	if _, err := fmt.Sscan(line, &echo, &own); err != nil {
		b.Fatal(err)
	}
	return echo, own
}

// BenchmarkHop compares calls over the data plane with a raw TCP echo of about the same size to another process, with one
// connection for each caller.
func BenchmarkHop(b *testing.B) {
	echo, own := otherProcess(b)
	for _, callers := range []int{1, 64, 512} {
		for _, size := range []int{256, 4096} {
			b.Run(fmt.Sprintf("echo/callers=%d/bytes=%d", callers, size), func(b *testing.B) {
				load(b, callers, func() (func() error, func()) { return echoCaller(b, echo, size) })
			})
		}
	}
	for _, connections := range []int{1, 2} {
		for _, callers := range []int{1, 64, 512} {
			for _, size := range []int{256, 4096} {
				b.Run(fmt.Sprintf("call/connections=%d/callers=%d/bytes=%d", connections, callers, size), func(b *testing.B) {
					d := benchData("client", connections)
					defer d.Close(context.Background())
					load(b, callers, func() (func() error, func()) { return hopCaller(d, own, size) })
				})
			}
		}
	}
}

func echoCaller(b *testing.B, addr string, size int) (call func() error, stop func()) {
	c, err := net.Dial("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	p := make([]byte, size)
	return func() error {
		if _, err := c.Write(p); err != nil {
			return err
		}
		_, err := io.ReadFull(c, p)
		return err
	}, func() { _ = c.Close() }
}

func hopCaller(d *wire.Plane, addr string, size int) (call func() error, stop func()) {
	req := &codec.Request{Kind: codec.KindGet, Namespace: []byte("bench"), Schema: 1, Key: []byte("key"), Timeout: 5 * time.Second}
	if size > 256 {
		req.Key = []byte("large key")
	}
	var resp codec.Response
	to := ring.Member{Name: "server", Addr: addr}
	return func() error {
		if err := d.Call(context.Background(), to, req, &resp); err != nil {
			return err
		}
		if len(resp.Value) != size {
			return fmt.Errorf("%d bytes, want %d; status %d", len(resp.Value), size, resp.Status)
		}
		resp.Release()
		return nil
	}, func() {}
}

// load runs b.N calls from the given number of callers and reports the results.
func load(b *testing.B, callers int, caller func() (call func() error, stop func())) {
	calls := make([]func() error, callers)
	for i := range calls {
		call, stop := caller()
		defer stop()
		if err := call(); err != nil {
			b.Fatal(err)
		}
		calls[i] = call
	}
	var next atomic.Int64
	took := make([][]time.Duration, callers)
	each := min(b.N/callers+1, 1<<14)
	for i := range took {
		took[i] = make([]time.Duration, 0, each)
	}
	var wg sync.WaitGroup
	runtime.GC()
	b.ReportAllocs()
	b.ResetTimer()
	for i, call := range calls {
		wg.Go(func() {
			for next.Add(1) <= int64(b.N) {
				began := time.Now()
				if err := call(); err != nil {
					b.Error(err)
					return
				}
				if len(took[i]) < each {
					took[i] = append(took[i], time.Since(began))
				}
			}
		})
	}
	wg.Wait()
	b.StopTimer()
	all := slices.Concat(took...)
	slices.Sort(all)
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "gets/s")
	b.ReportMetric(float64(all[len(all)/2])/1e3, "p50-us")
	b.ReportMetric(float64(all[len(all)*99/100])/1e3, "p99-us")
}
