package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/weircache/weir/internal/testlog"
)

// eventually polls until f holds.
func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(time.Minute); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within a minute: %s", what)
		}
	}
}

// process is a weir node in a separate process.
type process struct {
	cmd        *exec.Cmd
	log        *testlog.Log
	web, peers string
	ended      chan error
}

// startProcess runs weir node with a configuration. It ends at the latest with the test.
func startProcess(t *testing.T, bin, text string) *process {
	t.Helper()
	p := &process{log: &testlog.Log{}, ended: make(chan error, 1)}
	p.cmd = exec.CommandContext(t.Context(), bin, "node", "--config", file(t, text))
	p.cmd.Stdout, p.cmd.Stderr = p.log, p.log
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { p.ended <- p.cmd.Wait() }()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		<-p.ended
	})
	find := func(pattern string, to *string) func() bool {
		return func() bool {
			m := regexp.MustCompile(pattern).FindStringSubmatch(p.log.String())
			if m != nil {
				*to = m[1]
			}
			return m != nil
		}
	}
	eventually(t, "the node listens", find(`msg=listening .*advertised=(\S+)`, &p.peers))
	eventually(t, "the node serves", find(`msg=serving .*http=(\S+)`, &p.web))
	return p
}

// end waits until the process has ended.
func (p *process) end() error {
	err := <-p.ended
	p.ended <- err
	return err
}

// TestSigtermHandsOverLong checks that a process which receives SIGTERM hands over what it holds, even if one of its
// clients does not read its answers: the other member then has each of its keys without a load.
func TestSigtermHandsOverLong(t *testing.T) {
	bin := filepath.Join(t.TempDir(), "weir")
	if out, err := exec.CommandContext(t.Context(), "go", "build", "-o", bin, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var loads, big atomic.Int64
	page := bytes.Repeat([]byte("x"), 800<<10)
	origin := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/big") {
			big.Add(1)
			_, _ = w.Write(page)
			return
		}
		loads.Add(1)
		fmt.Fprint(w, "value of ", r.URL.Path)
	}))
	defer origin.Close()
	conf := func(name, join string) string {
		return fmt.Sprintf("node: {name: %s, join: [%s], drain_timeout: 20s}\nhttp: {listen: 127.0.0.1:0, grace: 2s}\n"+
			"namespaces:\n  product: {origin: {url: \"%s/{key}\"}, freshness: {ttl: 1h}}\n", name, join, origin.URL)
	}
	stays := startProcess(t, bin, conf("stays", ""))
	leaves := startProcess(t, bin, conf("leaves", stays.peers))
	for _, p := range []*process{stays, leaves} {
		eventually(t, "two members that know each other", func() bool {
			code, out, _ := try(t, "members", "--addr=http://"+p.web+"/weir")
			return code == 0 && strings.Contains(out, "stays") && strings.Contains(out, "leaves") && !strings.Contains(out, "joining")
		})
	}
	get := func(p *process, key string) {
		t.Helper()
		resp, err := http.Get("http://" + p.web + "/v1/product/" + key)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if body, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusOK || !strings.Contains(string(body), key) {
			t.Fatalf("%s: %d %q %v", key, resp.StatusCode, body, err)
		}
	}
	const keys = 600
	for i := range keys {
		get(leaves, fmt.Sprintf("k%d", i)) // the other member has no near copies
	}
	if n := loads.Load(); n != keys {
		t.Fatalf("%d loads of %d keys", n, keys)
	}

	idle, err := net.Dial("tcp", leaves.web) // it never reads
	if err != nil {
		t.Fatal(err)
	}
	defer idle.Close()
	if _, err := io.WriteString(idle, strings.Repeat("GET /v1/product/big HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 60)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the client's first answer is made", func() bool { return big.Load() > 0 })

	if err := leaves.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = leaves.end() // the log reports the unread answers as an error of the front
	for i := range keys {
		get(stays, fmt.Sprintf("k%d", i))
	}
	if n := loads.Load() - keys; n != 0 {
		t.Errorf("%d of %d keys were loaded again; the node that left said:\n%s", n, keys, leaves.log)
	}
}
