plugins {
    alias(libs.plugins.android)
}

android {
    namespace = "org.edvit.app"
    compileSdk = 36

    defaultConfig {
        applicationId = "org.edvit.app"
        minSdk = 29
        targetSdk = 36
        versionCode = 1
        versionName = "0.1.0"
        // What LiteRT is built for.
        ndk.abiFilters += listOf("arm64-v8a", "x86_64")
        buildConfigField("String", "LITERT", "\"${libs.versions.litert.get()}\"")
    }

    buildFeatures.buildConfig = true

    compileOptions {
        sourceCompatibility = JavaVersion.VERSION_17
        targetCompatibility = JavaVersion.VERSION_17
    }

    packaging {
        // Stored, not compressed, and aligned: loaded from the package as it is, also where pages have 16 KB.
        jniLibs.useLegacyPackaging = false
        resources.excludes += listOf("META-INF/versions/**", "META-INF/*.kotlin_module", "META-INF/INDEX.LIST", "META-INF/DEPENDENCIES")
    }
}

dependencies {
    // What `make android` has built and tested.
    implementation(files("../agent-core/target/agent-core-thin.jar", "../agent-android/target/agent-android.jar"))
    implementation(libs.litert)
    implementation(libs.kotlin.stdlib)
    implementation(libs.grpc.okhttp)
    implementation(libs.grpc.protobuf.lite)
    implementation(libs.grpc.stub)
    implementation(libs.protobuf.javalite)
    implementation(libs.bouncycastle)
    implementation(libs.gson)
    implementation(libs.zxing)
}
