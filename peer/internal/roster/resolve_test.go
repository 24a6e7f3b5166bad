package roster_test

import (
	"strings"
	"testing"

	"github.com/weircache/weir/peer/internal/roster"
)

func TestCheckSeed(t *testing.T) {
	longest := strings.Repeat("x", 253) // the longest DNS name
	for _, x := range []struct{ seed, want string }{
		{longest + ":65535", ""}, {longest + "x:65535", "the limit is 259"},
		{"a.test:7946", ""}, {"10.0.0.1:1", ""}, {"[::1]:7", ""}, {"_weir._tcp.a.test", ""}, {"_weir._tcp.a.test.", ""}, {"_w._udp.t", ""},
		{"a.test", "host:port"}, {"a.test:0", "port 0"}, {":7946", "no host"}, {"", "host:port"},
		{"_weir._tcp.a.test:7946", "leave the port out"}, {"_weir.a.test", "_service._tcp.name"}, {"_weir._tcp", "_service._tcp.name"},
		{"_._tcp.a", "_service._tcp.name"}, {"_weir._tcp..a", "_service._tcp.name"},
	} {
		err := roster.CheckSeed(x.seed)
		if x.want == "" && err != nil || x.want != "" && (err == nil || !strings.Contains(err.Error(), x.want)) {
			t.Errorf("%q: %v, want %q", x.seed, err, x.want)
		}
	}
}
