// The partition that the Java client's producer chooses for each key.
// usage: java -cp 'JARS/*' Partitions.java PARTITIONS < keys (one a line, in hex) > partitions

import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.util.HexFormat;
import org.apache.kafka.clients.producer.internals.BuiltInPartitioner;

class Partitions {
    public static void main(String[] args) throws Exception {
        int partitions = Integer.parseInt(args[0]);
        var keys = new BufferedReader(new InputStreamReader(System.in));
        for (String hex; (hex = keys.readLine()) != null; ) {
            byte[] key = HexFormat.of().parseHex(hex);
            System.out.println(BuiltInPartitioner.partitionForKey(key, partitions));
        }
    }
}
