import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.File;
import java.io.IOException;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.net.InetSocketAddress;
import java.net.URLDecoder;
import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Comparator;
import java.util.stream.Stream;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.FsShell;
import org.apache.hadoop.hdfs.HdfsConfiguration;
import org.apache.hadoop.hdfs.protocol.DatanodeInfo;
import org.apache.hadoop.hdfs.protocol.HdfsConstants.DatanodeReportType;
import org.apache.hadoop.hdfs.server.datanode.DataNode;
import org.apache.hadoop.hdfs.server.namenode.NameNode;
import org.apache.hadoop.hdfs.tools.DFSAdmin;
import org.apache.hadoop.metrics2.lib.DefaultMetricsSystem;
import org.apache.hadoop.security.UserGroupInformation;
import org.apache.hadoop.util.ExitUtil;
import org.apache.hadoop.util.Tool;
import org.apache.hadoop.util.ToolRunner;

/**
 * One NameNode and one DataNode in this process, for tests: they are told what to do by
 * lines on standard input and answer each by one line on standard output. The process
 * ends when standard input does.
 *
 * <p>Usage: {@code java Cluster DIR NAME=VALUE...}, where DIR is an empty directory or one
 * of an earlier run, and the rest are properties of Hadoop, fs.defaultFS with its port
 * among them.
 *
 * <p>A line is a command and its arguments, separated by tabs and each in the encoding of
 * HTML forms. The answer is the exit status, what went to standard output and what went to
 * standard error, in the same form.
 */
public final class Cluster {
  private static final long START_TIMEOUT_MS = 60_000;
  private static final long POLL_MS = 20;
  private static final int FIRST_IDLE_TIME_MS = 1_000;

  private final Path dir;
  private final Configuration conf;
  private NameNode nameNode;
  private DataNode dataNode;
  private int runs;

  private Cluster(Path dir, Configuration conf) {
    this.dir = dir;
    this.conf = conf;
  }

  public static void main(String[] args) throws Exception {
    BufferedReader in =
        new BufferedReader(new InputStreamReader(System.in, StandardCharsets.US_ASCII));
    PrintStream out = System.out;
    // The commands of Hadoop must neither read the protocol nor write into it.
    System.setIn(new ByteArrayInputStream(new byte[0]));
    System.setOut(System.err);
    ExitUtil.disableSystemExit();
    // A second set of metrics in one process would otherwise be refused.
    DefaultMetricsSystem.setMiniClusterMode(true);

    Cluster cluster = new Cluster(Path.of(args[0]), configuration(args));
    try {
      cluster.start();
    } catch (Throwable t) {
      t.printStackTrace();
      Runtime.getRuntime().halt(1);
    }
    out.printf("READY user=%s%n", UserGroupInformation.getLoginUser().getShortUserName());
    out.flush();
    for (String line = in.readLine(); line != null; line = in.readLine()) {
      out.println(cluster.answer(line));
      out.flush();
    }
    // Nobody needs the data any more; an orderly end would take seconds.
    Runtime.getRuntime().halt(0);
  }

  private static Configuration configuration(String[] args) {
    Configuration conf = new HdfsConfiguration();
    Path dir = Path.of(args[0]);
    conf.set("dfs.namenode.name.dir", dir.resolve("name").toUri().toString());
    conf.set("dfs.datanode.data.dir", dir.resolve("data").toUri().toString());
    conf.set("hadoop.tmp.dir", dir.resolve("tmp").toString());
    for (String arg : Arrays.copyOfRange(args, 1, args.length)) {
      int eq = arg.indexOf('=');
      conf.set(arg.substring(0, eq), arg.substring(eq + 1));
    }
    return conf;
  }

  private void start() throws Exception {
    if (!Files.exists(dir.resolve("name"))) {
      NameNode.format(conf);
    }
    startNameNode();
    startDataNode();
  }

  private String answer(String line) {
    String[] words = line.split("\t", -1);
    for (int i = 0; i < words.length; i++) {
      words[i] = URLDecoder.decode(words[i], StandardCharsets.UTF_8);
    }
    String[] args = Arrays.copyOfRange(words, 1, words.length);
    PrintStream stdout = System.out;
    PrintStream stderr = System.err;
    ByteArrayOutputStream out = new ByteArrayOutputStream();
    ByteArrayOutputStream err = new ByteArrayOutputStream();
    PrintStream outStream = new PrintStream(out, false, StandardCharsets.UTF_8);
    PrintStream errStream = new PrintStream(err, false, StandardCharsets.UTF_8);
    System.setOut(outStream);
    System.setErr(errStream);
    int status;
    try {
      status = execute(words[0], args);
    } catch (Throwable t) {
      t.printStackTrace(errStream);
      status = 1;
    } finally {
      System.setOut(stdout);
      System.setErr(stderr);
    }
    outStream.flush();
    errStream.flush();
    return status + "\t" + encode(out) + "\t" + encode(err);
  }

  private static String encode(ByteArrayOutputStream bytes) {
    return URLEncoder.encode(bytes.toString(StandardCharsets.UTF_8), StandardCharsets.UTF_8);
  }

  private int execute(String command, String[] args) throws Exception {
    switch (command) {
      case "dfs":
        return run(new FsShell(), args);
      case "admin":
        return run(new DFSAdmin(), args);
      case "stop-nn":
        stopNameNode();
        return 0;
      case "start-nn":
        startNameNode();
        awaitDataNode();
        return 0;
      case "stop-dn":
        stopDataNode();
        return 0;
      case "start-dn":
        startDataNode();
        return 0;
      case "reformat":
        stopDataNode();
        stopNameNode();
        deleteTree(dir.resolve("name"));
        deleteTree(dir.resolve("data"));
        start();
        return 0;
      case "purge-edits":
        return purgeEdits();
      default:
        throw new IllegalArgumentException("unknown command " + command);
    }
  }

  /**
   * Runs a tool of Hadoop as if in a process of its own: with new file systems, and with
   * new connections, since those to a NameNode that has restarted are dead. Connections are
   * shared only between users of equal settings.
   */
  private int run(Tool tool, String[] args) throws Exception {
    Configuration own = new HdfsConfiguration(conf);
    own.setInt("ipc.client.connection.maxidletime", FIRST_IDLE_TIME_MS + runs++);
    try {
      return ToolRunner.run(own, tool, args);
    } finally {
      FileSystem.closeAll();
    }
  }

  private void startNameNode() throws IOException {
    nameNode = NameNode.createNameNode(new String[0], conf);
  }

  private void stopNameNode() {
    if (nameNode != null) {
      nameNode.stop();
      nameNode.join();
      nameNode = null;
    }
  }

  private void startDataNode() throws Exception {
    dataNode = DataNode.createDataNode(new String[0], conf);
    if (nameNode != null) {
      awaitDataNode();
    }
  }

  private void stopDataNode() {
    if (dataNode != null) {
      dataNode.shutdown();
      dataNode = null;
    }
  }

  /** Returns when files can be written and those that there are can be read. */
  private void awaitDataNode() throws Exception {
    if (dataNode == null) {
      return; // the NameNode stays in safe mode if it has blocks
    }
    InetSocketAddress nn = nameNode.getNameNodeAddress();
    long deadline = System.nanoTime() + START_TIMEOUT_MS * 1_000_000;
    while (!isServing(nn)) {
      if (System.nanoTime() > deadline) {
        throw new IOException("the DataNode did not join the NameNode in time");
      }
      Thread.sleep(POLL_MS);
    }
  }

  private boolean isServing(InetSocketAddress nn) throws IOException {
    if (!dataNode.isDatanodeFullyStarted() || !dataNode.isConnectedToNN(nn)) {
      return false;
    }
    if (nameNode.getNamesystem().isInSafeMode()) {
      return false;
    }
    DatanodeInfo[] live = nameNode.getRpcServer().getDatanodeReport(DatanodeReportType.LIVE);
    return live.length == 1
        && live[0].getCapacity() > 0
        && live[0].getXferPort() == dataNode.getXferPort();
  }

  /**
   * Has old edits deleted. The NameNode keeps two checkpoints and what came after the older
   * one, so that after three nothing from before the first is left.
   */
  private int purgeEdits() throws Exception {
    int status = run(new DFSAdmin(), new String[] {"-safemode", "enter"});
    for (int i = 0; i < 3 && status == 0; i++) {
      status = run(new DFSAdmin(), new String[] {"-saveNamespace"});
    }
    return status | run(new DFSAdmin(), new String[] {"-safemode", "leave"});
  }

  private static void deleteTree(Path root) throws IOException {
    try (Stream<Path> paths = Files.walk(root)) {
      paths.sorted(Comparator.reverseOrder()).map(Path::toFile).forEach(File::delete);
    }
  }
}
