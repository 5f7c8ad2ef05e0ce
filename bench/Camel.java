import java.util.Map;
import org.apache.camel.Exchange;
import org.apache.camel.builder.RouteBuilder;
import org.apache.camel.component.kafka.KafkaConstants;
import org.apache.camel.component.platform.http.vertx.VertxPlatformHttpServer;
import org.apache.camel.component.platform.http.vertx.VertxPlatformHttpServerConfiguration;
import org.apache.camel.main.Main;
import org.apache.camel.model.dataformat.JsonLibrary;

/**
 * A peer: the same request taken by an Apache Camel route, published as JSON under the instance's id, answered after the
 * broker's acknowledgement. No Avro, no headers, no journal, no order, no recognition of repeats, no metrics, no credential.
 *
 * <p>{@code java -cp 'DIR/*' Camel.java PORT BOOTSTRAP_SERVERS TOPIC}
 */
public class Camel {
    private static final String ANSWER = "{\"code\":0}";

    public static void main(String[] arguments) throws Exception {
        int port = Integer.parseInt(arguments[0]);
        String producer = "kafka:" + arguments[2] + "?brokers=" + arguments[1]
            + "&requestRequiredAcks=all&enableIdempotence=true&compressionCodec=lz4&lingerMs=5";
        VertxPlatformHttpServerConfiguration listener = new VertxPlatformHttpServerConfiguration();
        listener.setBindHost("127.0.0.1");
        listener.setBindPort(port);
        Main main = new Main();
        main.configure().addRoutesBuilder(new RouteBuilder() {
            @Override
            public void configure() throws Exception {
                getContext().addService(new VertxPlatformHttpServer(listener));
                from("platform-http:/messageDeliver?httpMethodRestrict=POST")
                    .unmarshal().json(JsonLibrary.Jackson, Map.class)
                    .process(exchange -> exchange.getMessage().setBody(fields(exchange).get("msgContext")))
                    .unmarshal().json(JsonLibrary.Jackson, Map.class)
                    .process(exchange ->
                        exchange.getMessage().setHeader(KafkaConstants.KEY, fields(exchange).get("instanceId")))
                    .marshal().json(JsonLibrary.Jackson)
                    .to(producer)
                    .removeHeaders("*")
                    .setHeader("Content-Type", constant("application/json"))
                    .setHeader("Content-Length", constant(ANSWER.length()))
                    .setBody(constant(ANSWER));
            }
        });
        main.run();
    }

    private static Map<?, ?> fields(Exchange exchange) {
        return exchange.getMessage().getBody(Map.class);
    }
}
