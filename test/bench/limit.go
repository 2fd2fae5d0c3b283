package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// emptyServerFlag makes this program the server of empty calls: the limit must
// have what a cluster has, two processes.
const emptyServerFlag = "-empty-server"

// serveEmpty answers health checks until its input ends.
func serveEmpty() error {
	l, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // at once
	if err != nil {
		return err
	}
	srv := grpc.NewServer()
	healthv1.RegisterHealthServer(srv, health.NewServer())
	fmt.Println(l.Addr())
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // its end is the message
		srv.Stop()
	}()
	return srv.Serve(l)
}

// emptyCall measures an empty unary gRPC call between two processes.
func (b *bench) emptyCall(ctx context.Context, callers int) (perCPU float64, err error) {
	self, err := os.Executable()
	if err != nil {
		return 0, err
	}
	cmd := exec.CommandContext(ctx, self, emptyServerFlag) //nolint:gosec // this very program
	in, err := cmd.StdinPipe()
	if err != nil {
		return 0, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, in.Close(), cmd.Wait()) }()
	addr, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return 0, err
	}
	conn, err := grpc.NewClient(strings.TrimSpace(addr), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return 0, err
	}
	defer func() { _ = conn.Close() }() // nothing to be done about it
	c := healthv1.NewHealthClient(conn)
	_, perCPU, err = b.measure(ctx, pids{cmd.Process.Pid}, callers, func(ctx context.Context, _ int, _ int64) error {
		_, err := c.Check(ctx, &healthv1.HealthCheckRequest{})
		return err
	})
	return perCPU, err
}
