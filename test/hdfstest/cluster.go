// Package hdfstest starts a real HDFS for tests: a NameNode and a DataNode of Hadoop in
// one child process, driven by lines. The program is test/backends/hdfs; this package
// makes it, owns the process and has Hadoop's own clients do things in it. It never talks
// to HDFS itself.
package hdfstest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/freshet-io/freshet/test/child"
)

// User is the superuser of every cluster.
const User = "hdfs"

// Limits of waiting for the child.
const (
	startTimeout   = 90 * time.Second
	commandTimeout = 90 * time.Second
)

// Options of a cluster. The zero value is usable.
type Options struct {
	// Conf has more properties of core-site and hdfs-site, which win over the own ones.
	Conf map[string]string
	// Log receives the servers' log. Nil discards it; Start and Shared set it.
	Log io.Writer
}

// Cluster is a running HDFS with one DataNode. Its methods are safe for concurrent use;
// commands run one after the other.
type Cluster struct {
	addr, web, dataNode string
	process             *child.Process
}

// Launch starts a cluster that keeps its data in dir, an empty directory or that of an
// earlier cluster. The caller must Close it; it also ends with this process. ctx limits
// only the start.
func Launch(ctx context.Context, dir string, opt Options) (*Cluster, error) {
	made, err := Provision(ctx)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	const tries = 3
	for try := 1; ; try++ {
		c, err := launch(ctx, made, dir, opt)
		// Another process may take a port between the choice and the start.
		if err == nil || try == tries || !strings.Contains(err.Error(), "BindException") {
			return c, err
		}
	}
}

func launch(ctx context.Context, made, dir string, opt Options) (*Cluster, error) {
	ports, err := child.FreePorts(5)
	if err != nil {
		return nil, fmt.Errorf("hdfstest: %w", err)
	}
	var addr [5]string
	for i, p := range ports {
		addr[i] = net.JoinHostPort("127.0.0.1", strconv.Itoa(p))
	}
	conf := map[string]string{
		"fs.defaultFS":                    "hdfs://" + addr[0],
		"dfs.namenode.rpc-address":        addr[0],
		"dfs.namenode.http-address":       addr[1],
		"dfs.datanode.address":            addr[2],
		"dfs.datanode.http.address":       addr[3],
		"dfs.datanode.ipc.address":        addr[4],
		"dfs.namenode.rpc-bind-host":      "127.0.0.1",
		"dfs.replication":                 "1",
		"dfs.heartbeat.interval":          "1",
		"dfs.namenode.safemode.extension": "0",
		// Tests want files of many blocks without writing gigabytes.
		"dfs.namenode.fs-limits.min-block-size": "4096",
		// Nothing deletes edits but PurgeEdits, which wants none to stay.
		"dfs.namenode.num.extra.edits.retained":      "0",
		"ipc.client.connect.retry.interval":          "100",
		"hadoop.security.group.mapping":              "org.apache.hadoop.security.NullGroupsMapping",
		"hadoop.user.group.static.mapping.overrides": User + "=supergroup;",
	}
	maps.Copy(conf, opt.Conf)
	args := []string{
		"-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xms64m", "-Xmx512m", "-Djava.net.preferIPv4Stack=true",
		"-cp", filepath.Join(made, "classes") + string(os.PathListSeparator) + filepath.Join(made, "lib", "*"),
		"Cluster", dir,
	}
	for _, name := range slices.Sorted(maps.Keys(conf)) {
		args = append(args, name+"="+conf[name])
	}
	p, err := child.Start(ctx, child.Options{
		Path: "java", Args: args, Dir: dir, Env: append(os.Environ(), "HADOOP_USER_NAME="+User), Log: opt.Log, Dialogue: true,
	})
	if err != nil {
		return nil, fmt.Errorf("hdfstest: %w", err)
	}
	return &Cluster{addr: addr[0], web: addr[1], dataNode: addr[2], process: p}, nil
}

// Close ends the cluster. Its directory stays.
func (c *Cluster) Close() error { return c.process.Stop() }

// Start starts a cluster of tb's own, which ends with tb.
func Start(tb testing.TB, opt Options) *Cluster {
	tb.Helper()
	return child.StartFor(tb, opt.launcher())
}

func (o Options) launcher() child.Launch[*Cluster] {
	return func(ctx context.Context, dir string, log io.Writer) (*Cluster, error) {
		if o.Log == nil {
			o.Log = log
		}
		return Launch(ctx, dir, o)
	}
}

// shared is the process's one cluster, so that not every test pays for a start.
var shared child.Shared[*Cluster]

// Shared returns the cluster that all tests of the process use. A test that stops a part
// of it, or reformats it, takes one by Start instead.
func Shared(tb testing.TB) *Cluster {
	tb.Helper()
	return shared.Get(tb, Options{}.launcher())
}

// StopShared ends the cluster of Shared, if there is one. It is for TestMain.
func StopShared() { shared.Stop() }

// Addr is the NameNode's address, 127.0.0.1:PORT.
func (c *Cluster) Addr() string { return c.addr }

// WebAddr is the address of the NameNode's web server, which has /jmx.
func (c *Cluster) WebAddr() string { return c.web }

// DataNodeAddr is the address that clients read blocks from.
func (c *Cluster) DataNodeAddr() string { return c.dataNode }

// URI names a path of the cluster: hdfs://127.0.0.1:PORT/path.
func (c *Cluster) URI(path string) string {
	return "hdfs://" + c.addr + "/" + strings.TrimPrefix(path, "/")
}

// User is the superuser's name.
func (c *Cluster) User() string { return User }

// PID is the number of the process that holds all servers.
func (c *Cluster) PID() int { return c.process.PID() }

// CommandError is the failure of a command of Hadoop.
type CommandError struct {
	// Command and its exit status.
	Command []string
	Status  int
	// Output is what went to standard error.
	Output string
}

// Error shows the command and what it printed.
func (e *CommandError) Error() string {
	return fmt.Sprintf("hdfstest: %s: exit status %d: %s", strings.Join(e.Command, " "), e.Status, strings.TrimSpace(e.Output))
}

// Do has the process execute a command: "dfs" or "admin" with the arguments of hdfs dfs
// and hdfs dfsadmin, or one of the words of Cluster.java. It returns what the command
// printed. The error is a *CommandError if the command failed. An append that the NameNode
// refuses because the DataNode has not yet reported the file's last block, which on a busy
// machine it does late, is asked for again: a refused one has changed nothing.
func (c *Cluster) Do(ctx context.Context, command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, commandTimeout)
	defer cancel()
	for {
		out, err := c.once(ctx, command...)
		if err == nil || !strings.Contains(err.Error(), "is not sufficiently replicated yet") {
			return out, err
		}
		select {
		case <-ctx.Done():
			return out, err
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (c *Cluster) once(ctx context.Context, command ...string) (string, error) {
	words := make([]string, len(command))
	for i, w := range command {
		words[i] = url.QueryEscape(w)
	}
	answer, err := c.process.Ask(ctx, strings.Join(words, "\t"))
	if err != nil {
		return "", fmt.Errorf("hdfstest: %s: %w", strings.Join(command, " "), err)
	}
	fields := strings.Split(answer, "\t")
	if len(fields) != 3 {
		return "", fmt.Errorf("hdfstest: %s: answer %q", strings.Join(command, " "), answer)
	}
	status, err0 := strconv.Atoi(fields[0])
	out, err1 := url.QueryUnescape(fields[1])
	errOut, err2 := url.QueryUnescape(fields[2])
	if err := errors.Join(err0, err1, err2); err != nil {
		return "", fmt.Errorf("hdfstest: %s: answer: %w", strings.Join(command, " "), err)
	}
	if status != 0 {
		return out, &CommandError{Command: command, Status: status, Output: errOut}
	}
	return out, nil
}

func (c *Cluster) must(tb testing.TB, command ...string) string {
	tb.Helper()
	out, err := c.Do(context.Background(), command...)
	if err != nil {
		tb.Fatal(err)
	}
	return out
}

// Dfs runs hdfs dfs ARGS by Hadoop's own client, as the superuser, and returns what it
// printed. Paths without a scheme are in this cluster; it has no standard input.
func (c *Cluster) Dfs(tb testing.TB, args ...string) string {
	tb.Helper()
	return c.must(tb, append([]string{"dfs"}, args...)...)
}

// Admin runs hdfs dfsadmin ARGS, for example -rollEdits.
func (c *Cluster) Admin(tb testing.TB, args ...string) string {
	tb.Helper()
	return c.must(tb, append([]string{"admin"}, args...)...)
}

// StopNameNode stops the NameNode; its port refuses connections. Dfs and Admin fail
// meanwhile, after long tries.
func (c *Cluster) StopNameNode(tb testing.TB) { tb.Helper(); c.must(tb, "stop-nn") }

// StartNameNode starts the NameNode again, on the same port and with the same data, and
// returns when it and the DataNode serve.
func (c *Cluster) StartNameNode(tb testing.TB) { tb.Helper(); c.must(tb, "start-nn") }

// StopDataNode stops the DataNode. The NameNode takes minutes to count it as dead.
func (c *Cluster) StopDataNode(tb testing.TB) { tb.Helper(); c.must(tb, "stop-dn") }

// StartDataNode starts the DataNode again, on the same ports and with the same blocks, and
// returns when it serves.
func (c *Cluster) StartDataNode(tb testing.TB) { tb.Helper(); c.must(tb, "start-dn") }

// Reformat stops both servers and starts them with a new, empty name space on the same
// ports: transaction numbers begin again at 1.
func (c *Cluster) Reformat(tb testing.TB) { tb.Helper(); c.must(tb, "reformat") }

// PurgeEdits has the NameNode delete every finished edit log, by saving the name space.
func (c *Cluster) PurgeEdits(tb testing.TB) { tb.Helper(); c.must(tb, "purge-edits") }

// Pause has both servers answer nothing while connections stay open, until Resume.
func (c *Cluster) Pause(tb testing.TB) {
	tb.Helper()
	if err := c.process.Pause(); err != nil {
		tb.Fatal(err)
	}
}

// Resume ends Pause.
func (c *Cluster) Resume(tb testing.TB) {
	tb.Helper()
	if err := c.process.Resume(); err != nil {
		tb.Fatal(err)
	}
}
